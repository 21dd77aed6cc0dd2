#include "engine/normalizer.h"

#include <optional>
#include <utility>

#include "configs/error.h"
#include "engine/normalization.h"
#include "engine/regex.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

using configs::Quote;

constexpr std::size_t kMaxSteps = 64;
// A text may become so many times as long, and this much longer.
constexpr std::size_t kMaxGrowth = 16, kMaxAddition = 4096;
constexpr std::size_t kMaxText = 512;  // of Prepend, Replace

const std::string& Text(const Json& json, const char* name, const std::string& where) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_string()) {
    throw UserError(where + ": " + name + " must be a string");
  }
  const auto& text = it->get_ref<const std::string&>();
  if (text.size() > kMaxText) {
    throw UserError(where + ": " + name + " of " + std::to_string(text.size()) +
                    " bytes: at most " + std::to_string(kMaxText) + " are supported");
  }
  return text;
}

bool Flag(const Json& json, const char* name, const std::string& where) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_boolean()) {
    throw UserError(where + ": " + name + " must be true or false");
  }
  return it->get<bool>();
}

std::string Strip(std::string_view text, bool left, bool right) {
  const auto space_at = [&](std::size_t at, int* length) {
    return IsWhiteSpace(DecodeUtf8(text.substr(at), length));
  };
  int length = 0;
  while (left && !text.empty() && space_at(0, &length)) {
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  while (right && !text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<std::uint8_t>(text[at]) & 0xC0) == 0x80) --at;
    if (!space_at(at, &length)) break;
    text = text.substr(0, at);
  }
  return std::string(text);
}

}  // namespace

struct Normalizer::Step {
  enum class Kind { kNfc, kNfd, kReplace, kPrepend, kStrip } kind;
  std::string from, text;      // Replace: a literal, what takes its place; Prepend: text
  std::optional<Regex> regex;  // Replace: instead of from
  bool left = false, right = false;

  std::string Replace(std::string_view in, std::size_t limit) const {
    std::string out;
    std::size_t done = 0, begin = 0, end = 0;
    while (out.size() <= limit) {
      if (regex) {
        if (!regex->Find(in, done, &begin, &end)) break;
      } else {
        begin = in.find(from, done);
        if (begin == in.npos) break;
        end = begin + from.size();
      }
      out.append(in, done, begin - done).append(text);
      done = end;
    }
    return out.append(in, done, in.npos);
  }

  std::string Apply(std::string_view in, std::size_t limit) const {
    switch (kind) {
      case Kind::kNfc:
        return Nfc(in);
      case Kind::kNfd:
        return Nfd(in);
      case Kind::kReplace:
        return Replace(in, limit);
      case Kind::kPrepend:
        return in.empty() ? std::string() : text + std::string(in);
      case Kind::kStrip:
        return Strip(in, left, right);
    }
    return std::string(in);
  }
};

Normalizer::Normalizer(const Json* json, const std::string& where) : where_(where) {
  if (json) Add(*json, where);
}
Normalizer::~Normalizer() = default;
Normalizer::Normalizer(Normalizer&&) noexcept = default;

void Normalizer::Add(const Json& json, const std::string& where) {
  const auto type = json.is_object() ? json.find("type") : json.end();
  if (!json.is_object() || type == json.end() || !type->is_string()) {
    throw UserError(where + ": type is missing");
  }
  if (steps_.size() == kMaxSteps) {
    throw UserError(where + ": more than " + std::to_string(kMaxSteps) +
                    " steps are not supported");
  }
  Step step;
  if (*type == "Sequence") {
    const auto list = json.find("normalizers");
    if (list == json.end() || !list->is_array()) {
      throw UserError(where + ": normalizers is missing");
    }
    for (std::size_t i = 0; i < list->size(); ++i) {
      Add((*list)[i], where + "[" + std::to_string(i) + "]");
    }
    return;
  }
  if (*type == "Replace") return AddReplace(json, where);
  if (*type == "NFC") {
    step.kind = Step::Kind::kNfc;
  } else if (*type == "NFD") {
    step.kind = Step::Kind::kNfd;
  } else if (*type == "Prepend") {
    step.kind = Step::Kind::kPrepend;
    step.text = Text(json, "prepend", where);
  } else if (*type == "Strip") {
    step.kind = Step::Kind::kStrip;
    step.left = Flag(json, "strip_left", where);
    step.right = Flag(json, "strip_right", where);
  } else {
    throw UserError(where + ": " + Quote(type->get_ref<const std::string&>()) +
                    " is not supported: NFC, NFD, Replace, Prepend, Strip and Sequence are");
  }
  steps_.push_back(std::move(step));
}

void Normalizer::AddReplace(const Json& json, const std::string& where) {
  Step step;
  step.kind = Step::Kind::kReplace;
  step.text = Text(json, "content", where);
  const auto pattern = json.find("pattern");
  if (pattern == json.end() || !pattern->is_object() || pattern->size() != 1) {
    throw UserError(where + ": pattern must be {\"String\": text} or {\"Regex\": text}");
  }
  if (pattern->contains("Regex")) {
    step.regex.emplace(Text(*pattern, "Regex", where + ": pattern"), where);
    if (step.regex->MayBeEmpty()) {
      throw UserError(where + ": pattern " + configs::Brief(*pattern) +
                      " may match nothing: that is not supported");
    }
  } else {
    step.from = Text(*pattern, "String", where + ": pattern");
    if (step.from.empty()) throw UserError(where + ": pattern: an empty String");
  }
  steps_.push_back(std::move(step));
}

std::string Normalizer::Apply(std::string_view text) const {
  const std::size_t limit = text.size() * kMaxGrowth + kMaxAddition;
  std::string out(text);
  for (const Step& step : steps_) {
    out = step.Apply(out, limit);
    if (out.size() > limit) {
      throw UserError(where_ + ": makes more than " + std::to_string(limit) +
                      " bytes of a text of " + std::to_string(text.size()));
    }
  }
  return out;
}

}  // namespace temper::engine
