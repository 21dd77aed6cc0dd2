#include "reward/frames.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "configs/json.h"

namespace temper::reward {
namespace {

class Packer {
 public:
  Packer(FrameKind kind, std::string* bytes) : bytes_(bytes), begin_(bytes->size()) {
    Put(std::uint32_t{0});
    Put(kind);
  }
  ~Packer() {
    const auto size = static_cast<std::uint32_t>(bytes_->size() - begin_ - sizeof(std::uint32_t));
    std::memcpy(bytes_->data() + begin_, &size, sizeof size);
  }
  template <typename T>
  void Put(T value) {
    bytes_->append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void Text(std::string_view text) {
    Put(static_cast<std::uint32_t>(text.size()));
    bytes_->append(text);
  }

 private:
  std::string* bytes_;
  std::size_t begin_;
};

class Unpacker {
 public:
  Unpacker(std::string_view body, FrameKind kind) : rest_(body) {
    if (Get<FrameKind>() != kind) throw FrameError("a frame of another kind");
  }
  template <typename T>
  T Get() {
    T value;
    std::memcpy(&value, Take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view Text() { return Take(Get<std::uint32_t>()); }
  bool Flag() { return Get<std::uint8_t>() != 0; }
  void End() const {
    if (!rest_.empty()) throw FrameError("bytes after the end of a frame");
  }

 private:
  std::string_view Take(std::size_t size) {
    if (size > rest_.size()) throw FrameError("a frame that is too short");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  std::string_view rest_;
};

std::string Printable(std::string_view text, std::size_t limit) {
  text = text.substr(0, limit);
  const auto ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), ascii)) return std::string(text);
  const Json raw = std::string(text);
  // A quoted, escaped string with U+FFFD for what is no UTF-8: reading it back gives the repaired
  // text.
  return Json::parse(raw.dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

double Finite(double value) {
  if (!std::isfinite(value)) throw FrameError("a number that is not finite");
  return value;
}

void PutOutcome(const Outcome& outcome, Packer* pack) {
  pack->Put(outcome.status);
  pack->Put(static_cast<std::uint8_t>(outcome.score.has_value()));
  pack->Put(outcome.score.value_or(0.0));
  pack->Text(std::string_view(outcome.message).substr(0, kMaxMessage));
  pack->Put(outcome.line);
  pack->Put(outcome.micros);
  pack->Put(outcome.instructions);
  pack->Put(static_cast<std::uint32_t>(outcome.fields.size()));
  for (const auto& [name, value] : outcome.fields) {
    pack->Text(name);
    pack->Put(value);
  }
  pack->Text(outcome.trace.printed);
  pack->Put(static_cast<std::uint32_t>(outcome.trace.lines.size()));
  for (const auto& [line, count] : outcome.trace.lines) {
    pack->Put(line);
    pack->Put(count);
  }
}

Outcome TakeOutcome(Unpacker* unpack) {
  Outcome outcome;
  const auto status = unpack->Get<std::uint8_t>();
  if (status >= kStatusCount) throw FrameError("a status that is none of ours");
  outcome.status = static_cast<Status>(status);
  const bool has_score = unpack->Flag();
  const double score = Finite(unpack->Get<double>());
  if (has_score != (outcome.status == Status::kOk)) throw FrameError("a status against its score");
  if (has_score) outcome.score = score;
  outcome.message = Printable(unpack->Text(), kMaxMessage);
  outcome.line = unpack->Get<int>();
  outcome.micros = unpack->Get<std::int64_t>();
  outcome.instructions = unpack->Get<std::int64_t>();
  if (outcome.line < 0 || outcome.micros < 0 || outcome.instructions < 0) {
    throw FrameError("a negative line, time or count");
  }
  const auto count = unpack->Get<std::uint32_t>();
  if (count > kMaxFields) throw FrameError("too many fields");
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::string name = Printable(unpack->Text(), kMaxFieldName);
    outcome.fields.emplace_back(name, Finite(unpack->Get<double>()));
  }
  outcome.trace.printed = Printable(unpack->Text(), kMaxPrinted);
  const auto lines = unpack->Get<std::uint32_t>();
  if (lines > kMaxTraceLines) throw FrameError("too many lines");
  for (std::uint32_t i = 0; i < lines; ++i) {
    const auto line = unpack->Get<std::int32_t>();
    outcome.trace.lines.emplace_back(line, unpack->Get<std::int64_t>());
  }
  return outcome;
}

}  // namespace

void AppendReady(const std::string& isolation, std::string* bytes) {
  Packer(FrameKind::kReady, bytes).Text(isolation);
}

void AppendJob(const Job& job, std::string* bytes) {
  Packer pack(FrameKind::kJob, bytes);
  pack.Text(job.name);
  pack.Text(job.script);
  pack.Text(job.rule);
  pack.Text(job.options);
  pack.Put(static_cast<std::uint8_t>(job.trace));
  pack.Put(job.limits.timeout_s);
  pack.Put(job.limits.max_instructions);
  pack.Put(job.limits.memory_mib);
}

void AppendLoaded(const Loaded& loaded, std::string* bytes) {
  Packer pack(FrameKind::kLoaded, bytes);
  PutOutcome(loaded.outcome, &pack);
  pack.Put(static_cast<std::uint8_t>(loaded.scores_groups));
}

void AppendSample(const SampleInput& sample, const SampleInput* before, std::string* bytes) {
  Packer pack(FrameKind::kSample, bytes);
  const bool same = before != nullptr && before->prompt_json == sample.prompt_json &&
                    before->row_json == sample.row_json && before->answer == sample.answer;
  pack.Put(static_cast<std::uint8_t>(same));
  if (!same) {
    pack.Text(sample.prompt_json);
    pack.Text(sample.row_json);
    pack.Put(static_cast<std::uint8_t>(sample.answer.has_value()));
    pack.Text(sample.answer.value_or(""));
  }
  pack.Text(sample.completion);
  pack.Text({reinterpret_cast<const char*>(sample.completion_ids.data()),
             sample.completion_ids.size() * sizeof(std::int32_t)});
  pack.Text(sample.finish_reason);
  pack.Put(sample.version);
  pack.Put(sample.step);
}

void AppendGroup(std::uint32_t count, std::string* bytes) {
  Packer(FrameKind::kGroup, bytes).Put(count);
}

void AppendOutcome(const Outcome& outcome, std::string* bytes) {
  Packer pack(FrameKind::kOutcome, bytes);
  PutOutcome(outcome, &pack);
}

void AppendRowsRequest(const RowsRequest& request, std::string* bytes) {
  Packer pack(FrameKind::kPrompts, bytes);
  pack.Put(request.seed);
  pack.Put(request.batch);
  pack.Put(request.count);
}

void AppendRows(const MadeRows& made, std::string* bytes) {
  Packer pack(FrameKind::kRows, bytes);
  PutOutcome(made.outcome, &pack);
  pack.Put(static_cast<std::uint32_t>(made.rows.size()));
  for (const std::string& row : made.rows) pack.Text(row);
}

std::string_view TakeFrame(std::string_view bytes, std::uint32_t limit, std::size_t* offset) {
  const std::string_view rest = bytes.substr(*offset);
  std::uint32_t size = 0;
  if (rest.size() < sizeof size) return {};
  std::memcpy(&size, rest.data(), sizeof size);
  if (size == 0 || size > limit) throw FrameError("a frame of " + std::to_string(size) + " bytes");
  if (rest.size() - sizeof size < size) return {};
  *offset += sizeof size + size;
  return rest.substr(sizeof size, size);
}

FrameKind KindOf(std::string_view body) {
  return body.empty() ? FrameKind{0} : static_cast<FrameKind>(body[0]);
}

std::string ReadReady(std::string_view body) {
  Unpacker unpack(body, FrameKind::kReady);
  std::string isolation = Printable(unpack.Text(), kMaxMessage);
  unpack.End();
  return isolation;
}

Job ReadJob(std::string_view body) {
  Unpacker unpack(body, FrameKind::kJob);
  Job job;
  job.name = unpack.Text();
  job.script = unpack.Text();
  job.rule = unpack.Text();
  job.options = unpack.Text();
  job.trace = unpack.Flag();
  job.limits.timeout_s = unpack.Get<double>();
  job.limits.max_instructions = unpack.Get<std::int64_t>();
  job.limits.memory_mib = unpack.Get<int>();
  unpack.End();
  return job;
}

Loaded ReadLoaded(std::string_view body) {
  Unpacker unpack(body, FrameKind::kLoaded);
  Loaded loaded;
  loaded.outcome = TakeOutcome(&unpack);
  loaded.scores_groups = unpack.Flag();
  unpack.End();
  return loaded;
}

void ReadSample(std::string_view body, SampleInput* sample) {
  Unpacker unpack(body, FrameKind::kSample);
  if (!unpack.Flag()) {
    sample->prompt_json = unpack.Text();
    sample->row_json = unpack.Text();
    const bool has_answer = unpack.Flag();
    sample->answer = unpack.Text();
    if (!has_answer) sample->answer.reset();
  }
  sample->completion = unpack.Text();
  const std::string_view ids = unpack.Text();
  sample->completion_ids.resize(ids.size() / sizeof(std::int32_t));
  if (!sample->completion_ids.empty()) {
    std::memcpy(sample->completion_ids.data(), ids.data(),
                sample->completion_ids.size() * sizeof(std::int32_t));
  }
  sample->finish_reason = unpack.Text();
  sample->version = unpack.Get<std::uint32_t>();
  sample->step = unpack.Get<std::int64_t>();
  unpack.End();
}

std::uint32_t ReadGroup(std::string_view body) {
  Unpacker unpack(body, FrameKind::kGroup);
  const auto count = unpack.Get<std::uint32_t>();
  unpack.End();
  return count;
}

Outcome ReadOutcome(std::string_view body) {
  Unpacker unpack(body, FrameKind::kOutcome);
  Outcome outcome = TakeOutcome(&unpack);
  unpack.End();
  return outcome;
}

RowsRequest ReadRowsRequest(std::string_view body) {
  Unpacker unpack(body, FrameKind::kPrompts);
  RowsRequest request;
  request.seed = unpack.Get<std::uint64_t>();
  request.batch = unpack.Get<std::uint64_t>();
  request.count = unpack.Get<int>();
  unpack.End();
  return request;
}

MadeRows ReadRows(std::string_view body) {
  Unpacker unpack(body, FrameKind::kRows);
  MadeRows made;
  made.outcome = TakeOutcome(&unpack);
  const auto count = unpack.Get<std::uint32_t>();
  if (count > kMaxRowsAtOnce) throw FrameError("too many rows");
  for (std::uint32_t i = 0; i < count; ++i) made.rows.emplace_back(unpack.Text());
  unpack.End();
  return made;
}

}  // namespace temper::reward
