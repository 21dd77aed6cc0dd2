#include "learner/shared_batch.h"

#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/sha256.h"
#include "configs/version.h"

namespace temper::learner {

namespace {

/// Values as bytes, one behind the other; Reader takes them back in the same order.
class Writer {
 public:
  template <class T>
  void operator()(const T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    } else {
      (*this)(std::uint64_t(value.size()));
      bytes.append(reinterpret_cast<const char*>(value.data()), value.size() * sizeof(value[0]));
    }
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}

  template <class T>
  void operator()(T& value) {
    if constexpr (std::is_arithmetic_v<T>) {
      Copy(&value, sizeof value);
    } else {
      std::uint64_t count = 0;
      (*this)(count);
      if (count > bytes_.size()) throw std::logic_error("shared batch: torn");
      value.resize(count);
      Copy(value.data(), count * sizeof(value[0]));
    }
  }

 private:
  void Copy(void* to, std::size_t bytes) {
    if (bytes > bytes_.size() - at_) throw std::logic_error("shared batch: torn");
    if (bytes > 0) std::memcpy(to, bytes_.data() + at_, bytes);
    at_ += bytes;
  }

  const std::string& bytes_;
  std::size_t at_ = 0;
};

template <class Archive, class Row>
void VisitRow(Archive& archive, Row& row) {
  archive(row.grp);
  archive(row.sample);
  archive(row.attempt);
  archive(row.version);
  archive(row.state);
  archive(row.ids);
  archive(row.logp);
  archive(row.versions);
  archive(row.loss_mask);
  archive(row.experts);
  archive(row.kept);
  archive(row.finish_reason);
}

void Write(Writer& out, const Batch& batch) {
  out(batch.next_group);
  out(std::uint64_t(batch.groups.size()));
  for (const ScoredGroup& group : batch.groups) {
    out(group.grp);
    out(group.prompt_ids);
    out(std::uint64_t(group.samples.size()));
    for (const store::RolloutRow& row : group.samples) {
      VisitRow(out, row);
      out(row.score.has_value());
      out(row.score.value_or(0.0));
    }
  }
}

void Read(Reader& in, Batch* batch) {
  std::uint64_t groups = 0, samples = 0;
  in(batch->next_group);
  in(groups);
  for (std::uint64_t g = 0; g < groups; ++g) {
    ScoredGroup& group = batch->groups.emplace_back();
    in(group.grp);
    in(group.prompt_ids);
    in(samples);
    for (std::uint64_t s = 0; s < samples; ++s) {
      store::RolloutRow& row = group.samples.emplace_back();
      VisitRow(in, row);
      bool scored = false;
      double score = 0;
      in(scored);
      in(score);
      if (scored) row.score = score;
    }
  }
}

}  // namespace

void ShareBatch(Communicator& ranks, Batch* batch) {
  if (ranks.alone()) return;
  Writer out;
  if (ranks.root()) Write(out, *batch);
  ranks.FromRoot(&out.bytes);
  if (ranks.root()) return;
  Reader in(out.bytes);
  Read(in, batch);
}

void ShareCheckpoint(Communicator& ranks, FoundCheckpoint* found) {
  TrainState& state = found->state;
  std::string text = Json{{"dir", found->dir},
                          {"step", state.step},
                          {"version", state.version},
                          {"epoch", state.epoch},
                          {"position", state.position},
                          {"next_group", state.next_group},
                          {"incarnation", state.incarnation}}
                         .dump();
  ranks.FromRoot(&text);
  if (ranks.root()) return;
  const Json json = configs::ParseJson(text, "rank 0's checkpoint");
  found->dir = json["dir"];
  state.step = json["step"];
  state.version = json["version"];
  state.epoch = json["epoch"];
  state.position = json["position"];
  state.next_group = json["next_group"];
  state.incarnation = json["incarnation"];
}

void MustRunTheSame(Communicator& ranks, const configs::Config& config) {
  if (ranks.alone()) return;
  const std::string program = configs::ReadWholeFile("/proc/self/exe", std::uint64_t{4} << 30);
  const Json mine = {{"version", kVersion},
                     {"program", configs::Sha256Hex(program).substr(0, 16)},
                     {"config", configs::ToJson(config)}};
  std::vector<Json> all;
  for (const std::string& text : ranks.Gather(mine.dump()))
    all.push_back(configs::ParseJson(text, "a rank's settings"));
  for (std::size_t r = 1; r < all.size(); ++r) {
    const std::string name = "rank " + std::to_string(r);
    for (const char* key : {"version", "program"}) {
      if (all[r][key] != all[0][key])
        throw UserError(name + ": runs another temper-learner than rank 0 (" + key + " " +
                        all[r][key].dump() + ", not " + all[0][key].dump() +
                        "); install the same on every machine");
    }
    const auto differences = configs::Differences(all[0]["config"], all[r]["config"], {});
    if (differences.empty()) continue;
    std::string list;
    for (const std::string& one : differences) list += (list.empty() ? "" : ", ") + one;
    throw UserError(name + ": has other settings than rank 0: " + list +
                    "; start every rank with the same configuration");
  }
}

}  // namespace temper::learner
