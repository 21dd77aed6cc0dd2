#include "configs/json.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <numeric>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"

namespace temper::configs {
namespace {

constexpr std::size_t kBriefBytes = 100;

// Reads the text and tells how far nlohmann's lexer has come: its handlers carry no position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator() = default;
  CountingIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator old = *this;
    ++*this;
    return old;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_ = nullptr;
  const char** reached_ = nullptr;
};

[[noreturn]] void ThrowAt(std::string_view text, std::size_t offset, const std::string& where,
                          const std::string& what) {
  offset = std::min(offset, text.size());
  const std::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == before.npos ? offset + 1 : offset - newline;
  throw UserError(where + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + what);
}

// Refuses too many values before any of them costs memory: what separates and opens is counted,
// which for JSON is exactly the values and keys.
void CheckCount(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() <= limits.max_values) return;
  std::size_t count = 1;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\';
      continue;
    }
    if (c == '[' || c == '{') {
      const std::size_t next = text.find_first_not_of(" \t\r\n", at + 1);
      if (next != text.npos && (text[next] == ']' || text[next] == '}')) continue;
    } else if (c != ',' && c != ':') {
      continue;
    }
    if (++count > limits.max_values) {
      ThrowAt(text, at, where, "more than " + std::to_string(limits.max_values) + " values");
    }
  }
}

// Builds the value bottom-up on an explicit stack: objects are filled once, at their end, so that a
// vocabulary of 100,000 keys costs neither ordered_json's linear look-ups nor copies at each
// growth.
class Builder {
 public:
  using number_integer_t = Json::number_integer_t;
  using number_unsigned_t = Json::number_unsigned_t;
  using number_float_t = Json::number_float_t;
  using string_t = Json::string_t;
  using binary_t = Json::binary_t;

  Builder(std::string_view text, const std::string& where, const JsonLimits& limits)
      : text_(text), where_(where), limits_(limits), reached_(text.data()) {}

  const char** reached() { return &reached_; }
  Json Take() { return std::move(root_); }

  bool null() { return Add(Json(nullptr)); }
  bool boolean(bool value) { return Add(Json(value)); }
  bool number_integer(number_integer_t value) { return Add(Json(value)); }
  bool number_unsigned(number_unsigned_t value) { return Add(Json(value)); }
  bool number_float(number_float_t value, const string_t&) { return Add(Json(value)); }
  bool string(string_t& value) { return Add(Json(std::move(value))); }
  bool binary(binary_t&) { Fail("binary values are not JSON"); }

  bool start_object(std::size_t) { return Open(true); }
  bool key(string_t& name) {
    Count();
    stack_.back().keys.push_back(std::move(name));
    stack_.back().offsets.push_back(Offset());
    return true;
  }
  bool end_object() {
    Frame frame = Pop();
    CheckDuplicates(frame);
    Json value = Json::object();
    // The base vector's emplace_back: ordered_map's own would search for the key each time.
    Json::object_t::Container& members = value.get_ref<Json::object_t&>();
    members.reserve(frame.keys.size());
    for (std::size_t i = 0; i < frame.keys.size(); ++i) {
      members.emplace_back(std::move(frame.keys[i]), std::move(frame.values[i]));
    }
    return Place(std::move(value));
  }
  bool start_array(std::size_t) { return Open(false); }
  bool end_array() {
    Frame frame = Pop();
    Json value = Json::array();
    value.get_ref<Json::array_t&>() = std::move(frame.values);
    return Place(std::move(value));
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) {
    // "[json.exception...] parse error at line 1, column 5: WHAT; last read: TEXT": keep WHAT, the
    // rest may be huge.
    std::string what = e.what();
    const std::size_t column = what.find("column ");
    const std::size_t colon = column == what.npos ? column : what.find(": ", column);
    if (colon != what.npos) {
      what = what.substr(colon + 2);
    } else if (what.find("number overflow") != what.npos) {
      what = "a number is too large for a double";
    } else if (what.find("] ") != what.npos) {
      what = what.substr(what.find("] ") + 2);
    }
    what = what.substr(0, what.find("; last read"));
    ThrowAt(text_, position == 0 ? 0 : position - 1, where_, what.substr(0, 200));
  }

 private:
  struct Frame {
    bool object = false;
    std::vector<std::string> keys;
    std::vector<std::size_t> offsets;  // where each key ended
    std::vector<Json> values;
  };

  std::size_t Offset() const { return static_cast<std::size_t>(reached_ - text_.data()); }
  [[noreturn]] void Fail(const std::string& what) const {
    const std::size_t offset = Offset();
    ThrowAt(text_, offset == 0 ? 0 : offset - 1, where_, what);
  }
  void Count() {
    if (++values_ > limits_.max_values) {
      Fail("more than " + std::to_string(limits_.max_values) + " values");
    }
  }
  bool Open(bool object) {
    Count();
    if (stack_.size() >= static_cast<std::size_t>(limits_.max_depth)) {
      Fail("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    stack_.emplace_back();
    stack_.back().object = object;
    return true;
  }
  Frame Pop() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    return frame;
  }
  bool Add(Json value) {
    Count();
    return Place(std::move(value));
  }
  bool Place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else {
      stack_.back().values.push_back(std::move(value));
    }
    return true;
  }
  void CheckDuplicates(const Frame& frame) const {
    std::vector<std::size_t> order(frame.keys.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const int c = frame.keys[a].compare(frame.keys[b]);
      return c != 0 ? c < 0 : a < b;
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (frame.keys[order[i]] != frame.keys[order[i - 1]]) continue;
      ThrowAt(text_, frame.offsets[order[i]] - 1, where_,
              "duplicate key " + Quote(frame.keys[order[i]]));
    }
  }

  std::string_view text_;
  const std::string& where_;
  const JsonLimits& limits_;
  const char* reached_;
  std::size_t values_ = 0;
  std::vector<Frame> stack_;
  Json root_;
};

}  // namespace

Json ParseJson(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw UserError(where + ":1:1: " + std::to_string(text.size()) + " bytes of JSON: at most " +
                    std::to_string(limits.max_bytes) + " are read");
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") {
    ThrowAt(text, 0, where, "starts with a byte-order mark: JSON has none; save it as plain UTF-8");
  }
  // nlohmann's lexer takes a NUL for the end of the text and would ignore what follows.
  const std::size_t nul = text.find('\0');
  if (nul != text.npos) ThrowAt(text, nul, where, "a NUL byte");
  CheckCount(text, where, limits);
  Builder builder(text, where, limits);
  const CountingIterator begin(text.data(), builder.reached());
  const CountingIterator end(text.data() + text.size(), builder.reached());
  Json::sax_parse(begin, end, &builder);
  return builder.Take();
}

Json ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  return ParseJson(ReadWholeFile(path, limits.max_bytes), path, limits);
}

Json ReadJsonFile(const std::string& folder, const std::string& name, const JsonLimits& limits) {
  const InputFile file(folder, name);
  return ParseJson(ReadWholeFile(file, limits.max_bytes), file.path(), limits);
}

std::int64_t GetInt(const Json& value, const std::string& where, std::int64_t lo, std::int64_t hi) {
  bool good = value.is_number_integer();
  if (good && value.is_number_unsigned()) {
    const auto v = value.get<std::uint64_t>();
    good = hi >= 0 && v <= static_cast<std::uint64_t>(hi) &&
           (lo <= 0 || v >= static_cast<std::uint64_t>(lo));
  } else if (good) {
    const auto v = value.get<std::int64_t>();
    good = v >= lo && v <= hi;
  }
  if (!good) {
    throw UserError(where + ": " + Brief(value) + " must be an integer in [" + std::to_string(lo) +
                    ", " + std::to_string(hi) + "]");
  }
  return value.get<std::int64_t>();
}

double GetNumber(const Json& value, const std::string& where, double lo, double hi) {
  const double v = value.is_number() ? value.get<double>() : std::nan("");
  if (!std::isfinite(v) || v < lo || v > hi) {
    char range[80];
    std::snprintf(range, sizeof range, "[%.12g, %.12g]", lo, hi);
    throw UserError(where + ": " + Brief(value) + " must be a number in " + range);
  }
  return v;
}

std::string Quote(std::string_view text) {
  // Cutting inside a character is fine: dump replaces what is not UTF-8.
  const bool cut = text.size() > kBriefBytes;
  std::string out = Json(std::string(text.substr(0, kBriefBytes)))
                        .dump(-1, ' ', false, Json::error_handler_t::replace);
  if (cut) out += "... (" + std::to_string(text.size()) + " bytes)";
  return out;
}

std::string Brief(const Json& value) {
  if (value.is_string()) return Quote(value.get_ref<const std::string&>());
  if (value.is_array() && value.size() > 8) {
    return "a list of " + std::to_string(value.size()) + " values";
  }
  if (value.is_object() && value.size() > 8) {
    return "an object of " + std::to_string(value.size()) + " keys";
  }
  std::string out = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (out.size() <= kBriefBytes) return out;
  return value.is_array() ? "a list of " + std::to_string(value.size()) + " values"
                          : "an object of " + std::to_string(value.size()) + " keys";
}

}  // namespace temper::configs
