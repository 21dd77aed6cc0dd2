#pragma once
// The kinds of messages and their typed contents (docs/formats.md, "Wire"). Decode throws
// ProtocolError, nothing else.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "wire/message.h"

namespace temper::wire {

enum class Kind : std::uint16_t {
  kHello = 1,             // peer -> learner, first and again after kHelloFirst
  kWelcome = 2,           // learner -> peer
  kHeartbeat = 3,         // both ways, once a second
  kGoodbye = 4,           // both ways: the sender ends
  kRefuse = 5,            // both ways: a message was not taken
  kWeightsManifest = 10,  // learner -> actor: a version is published
  kWeightsPull = 11,      // actor -> learner
  kWeightsChunk = 12,     // learner -> actor
  kWeightsLoaded = 13,    // actor -> learner: every tensor is verified and in place
  kGrant = 20,            // learner -> actor
  kRollout = 21,          // actor -> learner
  kAck = 22,              // learner -> actor, after the database commit
  kScoreRequest = 30,     // learner -> reward worker
  kScoreResult = 31,      // reward worker -> learner
  kScripts = 32,          // learner -> reward worker: the texts that later requests are scored by
  kRemoteScores = 33,     // both ways between a reward worker and a remote reward
};
/// "rollout"; "kind 99" for an unknown one.
std::string KindName(std::uint16_t kind);

enum class Role { kActor, kRewardWorker };

/// What an actor still works on or has not seen acknowledged, as (grp, attempt); of a reward worker
/// (request, 0).
using Held = std::vector<std::pair<std::uint64_t, std::int32_t>>;

/// `session` everywhere: a random number of the learner's process. Work of another session is void.
struct Hello {
  Role role = Role::kActor;
  std::string name;            // a2; unique in the run, names the peer in rows, logs and errors
  std::uint64_t instance = 0;  // random number of this process: a restarted peer is not its ghost
  std::int64_t pid = 0;
  std::string temper_version;
  std::vector<std::string> numerics;  // ids this actor can run; empty for a reward worker
  std::int64_t rows =
      0;  // samples an actor decodes together; groups a reward worker scores together
  std::uint64_t session = 0;  // of the welcome it had before, 0 = none
  Held held;             // of that session
  std::string run = {};  // of that welcome; "" = whichever run this is
  std::string fabric = {}, device = {};  // engine/fabric.h: kind and place; "": none

  Message Encode() const;
  static Hello Decode(const Message& message);
};

struct Welcome {
  std::uint64_t session = 0;
  std::string run;
  double peer_timeout_s = 300;
  std::string numerics;        // what the run uses
  std::string config;          // the resolved configuration, JSON text
  std::string model_dir;       // the learner's path, for local peers
  std::string model_config;    // config.json's text
  std::int64_t valid_ids = 0;  // the tokenizer's size
  std::vector<std::pair<std::string, std::string>>
      files;  // reward scripts: the configured path and the text

  Message Encode() const;
  static Welcome Decode(const Message& message);
};

struct Heartbeat {
  std::optional<Held> held = std::nullopt;  // peer -> learner: what was lost on the way shows by its absence

  Message Encode() const;
  static Heartbeat Decode(const Message& message);
};

struct Goodbye {
  std::string reason;
  bool failed = false;  // the run ended with an error: the peer exits 3

  Message Encode() const;
  static Goodbye Decode(const Message& message);
};

/// Codes of Refuse.
inline constexpr char kHelloFirst[] = "hello_first";  // say hello (again), then repeat
inline constexpr char kNotWelcome[] = "not_welcome";  // final: the peer exits with the reason
inline constexpr char kBadMessage[] = "bad_message";  // undecodable or unknown; nothing was changed
inline constexpr char kBadWeights[] = "bad_weights";  // those in place are not the published ones
inline constexpr char kVersionGone[] = "version_gone";  // a newer manifest follows
inline constexpr char kNotTaken[] = "not_taken";        // this rollout: forget it

struct RolloutId {
  std::uint64_t grp = 0;
  std::uint32_t sample = 0;
  std::int32_t attempt = 0;
  bool operator==(const RolloutId&) const = default;
  auto operator<=>(const RolloutId&) const = default;
};

struct Refuse {
  std::string code;
  std::string reason;                // a line for a human
  std::optional<RolloutId> rollout;  // with kNotTaken

  Message Encode() const;
  static Refuse Decode(const Message& message);
};

/// How a tensor of a delta becomes its next version.
enum class DeltaForm : std::uint8_t {
  kSame,   // no bytes
  kPatch,  // wire/patch.h
  kFull,   // all of its bytes
};

struct WeightsManifest {
  struct Tensor {
    std::string name, dtype;  // F32, BF16, or F8_E4M3 with NAME_scale_inv (F32) next
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;  // bytes in the full set
    std::string sha256;                // of those bytes, 64 hex digits
    DeltaForm form = DeltaForm::kSame;
    std::uint64_t delta_begin = 0, delta_end = 0;  // bytes in the delta
  };
  std::uint64_t session = 0;
  std::uint32_t version = 0;
  std::uint64_t bytes = 0;            // of the full set
  std::vector<Tensor> tensors;        // contiguous from 0 to bytes
  std::optional<std::uint32_t> base = std::nullopt;  // whoever has this version may pull the delta instead
  std::uint64_t delta_bytes = 0;      // the tensors' pieces are contiguous from 0 to it
  std::string shared = {};  // where a process of this machine finds the full set (wire/shared_bytes.h); "": nowhere
  /// The broadcast of the full set that the receiver of this message is to take part in.
  struct Fabric {
    std::string group;  // 128 bytes
    int rank = 0, ranks = 0;  // of 1 .. ranks - 1; the learner is 0
    void AddTo(Message* manifest) const;
  };
  std::optional<Fabric> fabric = std::nullopt;

  Message Encode() const;
  static WeightsManifest Decode(const Message& message);
};

inline constexpr std::uint32_t kMaxChunkBytes = 4 << 20;

struct WeightsPull {
  std::uint32_t version = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;  // 1 .. kMaxChunkBytes
  bool delta = false;        // of the delta, not of the full set

  Message Encode() const;
  static WeightsPull Decode(const Message& message);
};

struct WeightsChunk {
  std::uint32_t version = 0;
  std::uint64_t offset = 0;
  Bytes data;
  bool delta = false;

  Message Encode() const;
  static WeightsChunk Decode(const Message& message);
};

struct WeightsLoaded {
  std::uint64_t session = 0;
  std::uint32_t version = 0;
  std::optional<std::uint32_t> canary = std::nullopt;  // engine/canary.h, of the weights in place

  Message Encode() const;
  static WeightsLoaded Decode(const Message& message);
};

/// What every group of a grant is sampled with.
struct Sampling {
  std::uint64_t seed = 0;
  int max_new_tokens = 1;
  double temperature = 1, top_p = 1, min_p = 0;
  int top_k = 0;
  std::vector<std::int32_t> stop_ids;
  bool experts = false;  // rollouts carry them
  bool kept = false;     // rollouts carry the ids that sampling chose from
};

struct GrantedGroup {
  std::uint64_t grp = 0;
  std::int32_t attempt = 0;
  std::vector<std::int32_t> prompt_ids;
  std::vector<std::uint32_t> samples;  // sample numbers
};

struct Grant {
  std::uint64_t session = 0;
  std::uint32_t version = 0;  // weights needed before the first token
  Sampling sampling;
  std::vector<GrantedGroup> groups;

  Message Encode() const;
  static Grant Decode(const Message& message);
};

/// One finished sample.
struct Rollout {
  std::uint64_t session = 0;
  RolloutId id;
  std::string finish;         // stop | length | cancelled | error
  std::uint32_t version = 0;  // of the first token
  std::vector<std::int32_t> ids;
  std::vector<float> logp;              // one an id
  std::vector<std::uint32_t> versions;  // one an id, or empty: all equal to version
  std::vector<std::uint16_t> experts = {};  // if asked for: [prompt + ids - 1][MoE layers][top_k]
  std::vector<std::int32_t> kept = {};  // if asked for: of each id their number, then those, ascending

  Message Encode() const;
  static Rollout Decode(const Message& message);
};

struct Ack {
  std::vector<RolloutId> rollouts;

  Message Encode() const;
  static Ack Decode(const Message& message);
};

/// The samples of one group, together because a script may compare them.
struct ScoreRequest {
  struct Sample {
    std::uint32_t sample = 0;
    std::uint32_t version = 0;
    std::string finish;      // stop | length
    std::string completion;  // text without special tokens
    std::vector<std::int32_t> completion_ids;
  };
  std::uint64_t id = 0;  // of this request; the result repeats it
  std::uint64_t grp = 0;
  std::int64_t step = 0;
  std::string prompt;  // JSON text: a string or a list of messages
  std::string row;     // JSON text: all dataset columns
  std::optional<std::string> answer;
  std::vector<Sample> samples;

  Message Encode() const;
  static ScoreRequest Decode(const Message& message);
};

/// Reward scripts that changed while the run goes on. Requests that follow are scored by these.
struct Scripts {
  std::vector<std::pair<std::string, std::string>> files;  // as in Welcome

  Message Encode() const;
  static Scripts Decode(const Message& message);
};

/// What one reward function (or one named part of its table) gave for a sample.
struct ScorePart {
  std::string name;
  std::optional<double> value;  // finite, or not applicable or failed
  double weight = 1.0;
  std::string status = "ok";  // design.md 8
  std::string message;        // of a failure
  int line = 0;               // of the script, 0 = none
  std::string script_sha256;  // "" for a rule
  std::int64_t micros = 0;
};

struct ScoreResult {
  struct Sample {
    std::uint32_t sample = 0;
    std::optional<double> score;  // weighted sum; none: not applicable or failed
    std::string status = "ok";    // the first failure of its parts, else not_applicable or ok
    std::vector<ScorePart> parts;
  };
  std::uint64_t id = 0;
  std::uint64_t grp = 0;
  std::vector<Sample> samples;  // every sample of the request, in its order

  Message Encode() const;
  static ScoreResult Decode(const Message& message);
};

}  // namespace temper::wire
