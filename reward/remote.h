#pragma once
// A reward that another process gives: asked over the wire, with a deadline and further tries.
#include <memory>
#include <string>
#include <vector>

#include "reward/backend.h"
#include "wire/client.h"
#include "wire/message.h"

namespace temper::reward {

/// docs/formats.md, "Remote rewards". One request a group. A try that ends without an answer is
/// made again on a new connection after 0.1 s, 0.2 s, ... up to 2 s; when none is left every sample
/// is `unavailable`. An answer that is no message, names another count of scores or gives no
/// number is `invalid_return`, never a score.
class RemoteReward : public Backend {
 public:
  /// UserError for an endpoint that cannot be; nothing is asked yet.
  RemoteReward(const std::string& endpoint, double timeout_s, int retries);
  ~RemoteReward() override;

  std::vector<Outcome> Score(std::span<const SampleInput> samples) override;
  Outcome Check() override;

 private:
  /// The outcomes, or none when no answer came in time.
  std::vector<Outcome> Ask(const wire::Message& request, std::size_t count);

  const std::string endpoint_;
  std::unique_ptr<wire::Client> client_;  // none before the first request and after a failed try
  const double timeout_s_;
  const int retries_;
  std::uint64_t next_id_;
};

/// The request's message. Completions are texts in which invalid UTF-8 is replaced; their ids are
/// exact.
wire::Message RemoteRequest(const std::string& id, std::span<const SampleInput> samples);

/// What an answer says of `count` samples. Total: any message gives outcomes.
std::vector<Outcome> ReadRemoteScores(const wire::Message& answer, std::size_t count);

}  // namespace temper::reward
