#include "wire/protocol.h"

#include <array>

#include "wire/protocol_fields.h"

namespace temper::wire {
namespace {

constexpr std::array<std::pair<Kind, const char*>, 16> kNames = {{
    {Kind::kHello, "hello"},
    {Kind::kWelcome, "welcome"},
    {Kind::kHeartbeat, "heartbeat"},
    {Kind::kGoodbye, "goodbye"},
    {Kind::kRefuse, "refuse"},
    {Kind::kWeightsManifest, "weights_manifest"},
    {Kind::kWeightsPull, "weights_pull"},
    {Kind::kWeightsChunk, "weights_chunk"},
    {Kind::kWeightsLoaded, "weights_loaded"},
    {Kind::kGrant, "grant"},
    {Kind::kRollout, "rollout"},
    {Kind::kAck, "ack"},
    {Kind::kScoreRequest, "score_request"},
    {Kind::kScoreResult, "score_result"},
    {Kind::kScripts, "scripts"},
    {Kind::kRemoteScores, "remote_scores"},
}};

}  // namespace

std::string KindName(std::uint16_t kind) {
  for (const auto& [known, name] : kNames) {
    if (static_cast<std::uint16_t>(known) == kind) return name;
  }
  return "kind " + std::to_string(kind);
}

namespace {

void AddHeld(const Held& held, Message* m) {
  std::vector<std::uint64_t> grps;
  std::vector<std::int32_t> attempts;
  for (const auto& [grp, attempt] : held) {
    grps.push_back(grp);
    attempts.push_back(attempt);
  }
  m->Add(grps);
  m->Add(attempts);
}

Held TakeHeld(const Fields& fields) {
  fields.ExpectArrays(2);
  const auto grps = fields.Values<std::uint64_t>(0);
  const auto attempts = fields.Values<std::int32_t>(1);
  if (attempts.size() != grps.size()) fields.Fail("one attempt belongs to each held group");
  Held held;
  for (std::size_t i = 0; i < grps.size(); ++i) held.emplace_back(grps[i], attempts[i]);
  return held;
}

}  // namespace

Message Hello::Encode() const {
  Message m = Start(Kind::kHello);
  m.header = {{"role", role == Role::kActor ? "actor" : "reward_worker"},
              {"name", name},
              {"instance", Hex(instance)},
              {"pid", pid},
              {"temper_version", temper_version},
              {"numerics", numerics},
              {"rows", rows},
              {"session", Hex(session)},
              {"run", run}};
  if (!fabric.empty()) m.header["fabric"] = fabric;
  if (!device.empty()) m.header["device"] = device;
  AddHeld(held, &m);
  return m;
}

Hello Hello::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kHello, "hello");
  Hello hello;
  hello.held = TakeHeld(fields);
  const std::string role = fields.Text("role");
  if (role != "actor" && role != "reward_worker")
    fields.Fail("role must be actor or reward_worker");
  hello.role = role == "actor" ? Role::kActor : Role::kRewardWorker;
  hello.name = ShortText(fields, "name");
  if (hello.name.empty()) fields.Fail("name is empty");
  hello.instance = U64FromHex(fields, "instance");
  hello.pid = fields.Int("pid", 0, kMaxI64);
  hello.temper_version = ShortText(fields, "temper_version");
  const Json& ids = List(fields, message.header, "numerics");
  for (const Json& id : ids) {
    if (!id.is_string()) fields.Fail("numerics must be a list of strings");
    hello.numerics.push_back(id.get<std::string>());
  }
  hello.rows = fields.Int("rows", 1, kMaxI32);
  hello.session = U64FromHex(fields, "session");
  if (fields.Has("run")) hello.run = fields.Text("run");
  if (fields.Has("fabric")) hello.fabric = ShortText(fields, "fabric");
  if (fields.Has("device")) hello.device = ShortText(fields, "device");
  return hello;
}

namespace {

/// The texts stand behind `first` other arrays.
std::vector<std::pair<std::string, std::string>> TakeFiles(const Fields& fields,
                                                           const Message& message,
                                                           std::size_t first) {
  std::vector<std::pair<std::string, std::string>> files;
  const Json& paths = List(fields, message.header, "files");
  fields.ExpectArrays(first + paths.size());
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (!paths[i].is_string()) fields.Fail("files must be a list of strings");
    files.emplace_back(paths[i].get<std::string>(), fields.Chars(first + i));
  }
  return files;
}

}  // namespace

Message Welcome::Encode() const {
  Message m = Start(Kind::kWelcome);
  Json paths = Json::array();
  for (const auto& [path, text] : files) paths.push_back(path);
  m.header = {{"session", Hex(session)},          {"run", run},
              {"peer_timeout_s", peer_timeout_s}, {"numerics", numerics},
              {"model_dir", model_dir},           {"valid_ids", valid_ids},
              {"files", std::move(paths)}};
  m.AddText(config);
  m.AddText(model_config);
  for (const auto& [path, text] : files) m.AddText(text);
  return m;
}

Welcome Welcome::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kWelcome, "welcome");
  Welcome welcome;
  welcome.session = U64FromHex(fields, "session");
  welcome.run = fields.Text("run");
  welcome.peer_timeout_s = fields.Number("peer_timeout_s");
  welcome.numerics = fields.Text("numerics");
  welcome.model_dir = fields.Text("model_dir");
  welcome.valid_ids = fields.Int("valid_ids", 0, kMaxI32);
  welcome.files = TakeFiles(fields, message, 2);
  welcome.config = fields.Chars(0);
  welcome.model_config = fields.Chars(1);
  return welcome;
}

Message Scripts::Encode() const {
  Message m = Start(Kind::kScripts);
  Json paths = Json::array();
  for (const auto& [path, text] : files) {
    paths.push_back(path);
    m.AddText(text);
  }
  m.header["files"] = std::move(paths);
  return m;
}

Scripts Scripts::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kScripts, "scripts");
  Scripts scripts;
  scripts.files = TakeFiles(fields, message, 0);
  return scripts;
}

Message Heartbeat::Encode() const {
  Message m = Start(Kind::kHeartbeat);
  if (held) AddHeld(*held, &m);
  return m;
}

Heartbeat Heartbeat::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kHeartbeat, "heartbeat");
  if (message.arrays.empty()) return {};
  return {TakeHeld(fields)};
}

Message Goodbye::Encode() const {
  Message m = Start(Kind::kGoodbye);
  m.header = {{"reason", reason}, {"failed", failed}};
  return m;
}

Goodbye Goodbye::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kGoodbye, "goodbye");
  return {fields.Text("reason"), fields.Bool("failed")};
}

Message Refuse::Encode() const {
  Message m = Start(Kind::kRefuse);
  m.header = {{"code", code}, {"reason", reason}};
  if (rollout) {
    m.header["grp"] = rollout->grp;
    m.header["sample"] = rollout->sample;
    m.header["attempt"] = rollout->attempt;
  }
  return m;
}

Refuse Refuse::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kRefuse, "refuse");
  Refuse refuse{ShortText(fields, "code"), fields.Text("reason"), std::nullopt};
  if (fields.Has("grp")) {
    refuse.rollout = RolloutId{static_cast<std::uint64_t>(fields.Int("grp", 0, kMaxI64)),
                               static_cast<std::uint32_t>(fields.Int("sample", 0, kMaxU32)),
                               static_cast<std::int32_t>(fields.Int("attempt", 0, kMaxI32))};
  }
  return refuse;
}

}  // namespace temper::wire
