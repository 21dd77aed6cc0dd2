// What reward workers answer: columns, because a step's hundreds of parts as JSON objects took more
// time than their scripts.
#include <cmath>
#include <unordered_map>

#include "wire/protocol_fields.h"

namespace temper::wire {
namespace {

constexpr std::size_t kSampleColumns = 3, kPartColumns = 5;

/// Each text once; columns hold its place in the list.
class Texts {
 public:
  std::uint32_t Place(const std::string& text) {
    const auto [at, inserted] = places_.emplace(text, static_cast<std::uint32_t>(places_.size()));
    if (inserted) list_.push_back(text);
    return at->second;
  }
  const Json& list() const { return list_; }

 private:
  std::unordered_map<std::string, std::uint32_t> places_;
  Json list_ = Json::array();
};

double OrNan(const std::optional<double>& value) {
  return value.value_or(std::numeric_limits<double>::quiet_NaN());
}

/// The columns of one message, checked against one another.
class Columns {
 public:
  explicit Columns(const Message& message)
      : fields_(Open(message, Kind::kScoreResult, "score_result")) {
    fields_.ExpectArrays(6);
    for (Json& text : ParseList(fields_, 0, "score_result texts")) {
      if (!text.is_string()) fields_.Fail("a text is no string");
      texts_.push_back(std::move(text.get_ref<std::string&>()));
    }
    samples_ = fields_.Values<std::uint32_t>(1);
    scores_ = fields_.Values<double>(2);
    parts_ = fields_.Values<std::uint32_t>(3);
    values_ = fields_.Values<double>(4);
    micros_ = fields_.Values<std::uint64_t>(5);
    std::uint64_t parts = 0;
    for (std::size_t i = 2; i < samples_.size(); i += kSampleColumns) parts += samples_[i];
    if (samples_.size() != kSampleColumns * scores_.size() ||
        parts_.size() != kPartColumns * parts || values_.size() != 2 * parts ||
        micros_.size() != parts) {
      fields_.Fail("columns of different lengths");
    }
  }

  ScoreResult Read() {
    ScoreResult result;
    result.id = U64FromHex(fields_, "id");
    result.grp = static_cast<std::uint64_t>(fields_.Int("grp", 0, kMaxI64));
    std::size_t part = 0;
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      const std::uint32_t* const row = &samples_[kSampleColumns * i];
      ScoreResult::Sample sample;
      sample.sample = row[0];
      sample.status = Name(row[1]);
      sample.score = Optional(scores_[i]);
      for (std::uint32_t n = 0; n < row[2]; ++n) sample.parts.push_back(Part(part++));
      result.samples.push_back(std::move(sample));
    }
    return result;
  }

 private:
  ScorePart Part(std::size_t at) const {
    const std::uint32_t* const row = &parts_[kPartColumns * at];
    ScorePart part;
    part.name = Text(row[0]);
    part.status = Name(row[1]);
    part.line = row[2] <= kMaxI32 ? static_cast<int>(row[2]) : 0;
    part.script_sha256 = Name(row[3]);
    part.message = Text(row[4]);
    part.value = Optional(values_[2 * at]);
    part.weight = values_[2 * at + 1];
    if (!std::isfinite(part.weight)) fields_.Fail("a weight is not finite");
    if (micros_[at] > static_cast<std::uint64_t>(kMaxI64)) fields_.Fail("micros out of range");
    part.micros = static_cast<std::int64_t>(micros_[at]);
    return part;
  }
  const std::string& Text(std::uint32_t place) const {
    if (place >= texts_.size()) fields_.Fail("a text is not in the list");
    return texts_[place];
  }
  const std::string& Name(std::uint32_t place) const {
    const std::string& text = Text(place);
    if (text.size() > kMaxName) fields_.Fail("a name of more than 256 bytes");
    return text;
  }
  /// NaN stands for none.
  std::optional<double> Optional(double value) const {
    if (std::isnan(value)) return std::nullopt;
    if (std::isinf(value)) fields_.Fail("a score is infinite");
    return value;
  }

  Fields fields_;
  std::vector<std::string> texts_;
  std::vector<std::uint32_t> samples_, parts_;
  std::vector<double> scores_, values_;
  std::vector<std::uint64_t> micros_;
};

}  // namespace

Message ScoreResult::Encode() const {
  Texts texts;
  std::vector<std::uint32_t> sample_columns, part_columns;
  std::vector<double> scores, values;
  std::vector<std::uint64_t> micros;
  for (const Sample& s : samples) {
    for (const std::uint32_t column :
         {s.sample, texts.Place(s.status), static_cast<std::uint32_t>(s.parts.size())}) {
      sample_columns.push_back(column);
    }
    scores.push_back(OrNan(s.score));
    for (const ScorePart& p : s.parts) {
      for (const std::uint32_t column :
           {texts.Place(p.name), texts.Place(p.status), static_cast<std::uint32_t>(p.line),
            texts.Place(p.script_sha256), texts.Place(p.message)}) {
        part_columns.push_back(column);
      }
      values.push_back(OrNan(p.value));
      values.push_back(p.weight);
      micros.push_back(static_cast<std::uint64_t>(p.micros));
    }
  }
  Message m = Start(Kind::kScoreResult);
  m.header = {{"id", Hex(id)}, {"grp", grp}};
  m.AddText(DumpLossy(texts.list()));
  m.Add(sample_columns);
  m.Add(scores);
  m.Add(part_columns);
  m.Add(values);
  m.Add(micros);
  return m;
}

ScoreResult ScoreResult::Decode(const Message& message) { return Columns(message).Read(); }

}  // namespace temper::wire
