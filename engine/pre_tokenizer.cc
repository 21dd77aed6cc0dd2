#include "engine/pre_tokenizer.h"

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "configs/error.h"
#include "engine/short_texts.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

using configs::Brief;
using configs::Quote;

// Digits asks Rust's char::is_numeric, which knows Unicode 17; Split's Oniguruma stops at 16.
constexpr const char* kNumeric =
    "[\\p{N}\xF0\x91\xB7\xA0-\xF0\x91\xB7\xA9\xF0\x96\xBF\xB4-\xF0\x96\xBF\xB6]";
// Each takes the pieces of the one before it.
constexpr std::size_t kMaxPatterns = 64;
// GPT-2's, built into ByteLevel when use_regex is set.
constexpr const char* kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const Json* Member(const Json* json, const char* name) {
  if (!json || !json->is_object()) return nullptr;
  const auto it = json->find(name);
  return it == json->end() ? nullptr : &*it;
}

std::string TypeOf(const Json& json, const std::string& where) {
  const Json* type = Member(&json, "type");
  if (!type || !type->is_string()) throw UserError(where + ": type is missing");
  return type->get<std::string>();
}

bool BoolOf(const Json& json, const char* name, bool absent, const std::string& where) {
  const Json* value = Member(&json, name);
  if (!value) return absent;
  if (!value->is_boolean()) {
    throw UserError(where + ": " + name + ": " + Brief(*value) + " must be true or false");
  }
  return value->get<bool>();
}

}  // namespace

// Where the patterns from some level on cut a short text: a piece is cut for itself, so the same
// text is always cut alike.
struct Cuts {
  std::uint8_t pieces = 0;
  std::uint8_t sizes[22];
};
using KnownCuts = ShortTexts<Cuts>;
static_assert(sizeof(Cuts::sizes) == KnownCuts::kBytes);
constexpr std::size_t kKnownCuts = 4096;  // 256 KiB a thread

// One a thread.
struct CutScratch {
  KnownCuts known{kKnownCuts};
  std::vector<std::uint8_t> sizes;  // of the last pieces of the short texts that are being cut
  int cutting = 0;                  // such texts, one in the other
};

struct PreTokenizer::Cutter {
  const PreTokenizer& owner;
  const std::function<void(std::string_view)>& give;
  CutScratch& scratch;

  void Run(std::size_t level, std::string_view text) {
    if (level == owner.patterns_.size()) {
      if (scratch.cutting > 0) scratch.sizes.push_back(static_cast<std::uint8_t>(text.size()));
      give(text);
    } else if (level > 0 && text.size() <= KnownCuts::kBytes) {
      RunShort(level, text);
    } else {
      RunPattern(level, text);
    }
  }

  void RunShort(std::size_t level, std::string_view text) {
    const std::uint64_t key = owner.owner_ * kMaxPatterns + level;
    KnownCuts::Slot& slot = scratch.known.At(key, text);
    if (slot.Holds(key, text)) {
      for (int i = 0; i < slot.value.pieces; ++i) {
        Run(owner.patterns_.size(), text.substr(0, slot.value.sizes[i]));
        text.remove_prefix(slot.value.sizes[i]);
      }
      return;
    }
    const std::size_t first = scratch.sizes.size();
    ++scratch.cutting;
    RunPattern(level, text);
    --scratch.cutting;
    slot.Keep(key, text);
    slot.value.pieces = static_cast<std::uint8_t>(scratch.sizes.size() - first);
    std::copy(scratch.sizes.begin() + static_cast<std::ptrdiff_t>(first), scratch.sizes.end(),
              slot.value.sizes);
    if (scratch.cutting == 0) scratch.sizes.clear();
  }

  // Matches and the gaps between them both become pieces, cut further by the next pattern.
  void RunPattern(std::size_t level, std::string_view text) {
    std::size_t done = 0, from = 0;
    std::size_t begin = 0, end = 0;
    while (from <= text.size() && owner.patterns_[level].Find(text, from, &begin, &end)) {
      if (begin > done) Run(level + 1, text.substr(done, begin - done));
      if (end > begin) Run(level + 1, text.substr(begin, end - begin));
      done = end;
      // An empty match cuts too; go on behind the next character.
      from = end > begin
                 ? end
                 : end + static_cast<std::size_t>(std::max(Utf8Length(text.substr(end, 4)), 1));
    }
    if (done < text.size()) Run(level + 1, text.substr(done));
  }
};

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) : owner_(NextOwner()) {
  Add(json, where);
  if (!byte_level_) throw UserError(where + ": only byte-level tokenizers are supported");
}

void PreTokenizer::Add(const Json& json, const std::string& where) {
  const std::string type = TypeOf(json, where);
  if (byte_level_) throw UserError(where + ": " + type + " after ByteLevel is not supported");
  if (type == "Sequence") {
    const Json* list = Member(&json, "pretokenizers");
    if (!list || !list->is_array()) {
      throw UserError(where + ": pretokenizers is missing");
    }
    for (std::size_t i = 0; i < list->size(); ++i) {
      const std::string part = where + "[" + std::to_string(i) + "]";
      if (TypeOf((*list)[i], part) == type) throw UserError(part + ": a Sequence in a Sequence");
      Add((*list)[i], part);
    }
  } else if (type == "Split") {
    const Json* behavior = Member(&json, "behavior");
    if (!behavior || *behavior != "Isolated" || BoolOf(json, "invert", false, where)) {
      throw UserError(where + ": only Split with behavior Isolated, not inverted, is supported");
    }
    const Json* regex = Member(Member(&json, "pattern"), "Regex");
    if (!regex || !regex->is_string()) {
      throw UserError(where + ": only Split by {\"Regex\": string} is supported");
    }
    AddPattern(regex->get<std::string>(), where);
  } else if (type == "Digits") {
    const bool one = BoolOf(json, "individual_digits", false, where);
    AddPattern(std::string(kNumeric) + (one ? "" : "+"), where);
  } else if (type == "ByteLevel") {
    if (BoolOf(json, "add_prefix_space", true, where)) {
      throw UserError(where + ": add_prefix_space true is not supported");
    }
    if (BoolOf(json, "use_regex", true, where)) AddPattern(kGpt2Pattern, where);
    byte_level_ = true;
  } else {
    throw UserError(where + ": " + Quote(type) + " is not supported");
  }
}

void PreTokenizer::AddPattern(const std::string& source, const std::string& where) {
  if (patterns_.size() == kMaxPatterns) {
    throw UserError(where + ": more than " + std::to_string(kMaxPatterns) +
                    " patterns are not supported");
  }
  patterns_.emplace_back(source, where);
}

void PreTokenizer::Cut(std::string_view text,
                       const std::function<void(std::string_view)>& give) const {
  thread_local CutScratch scratch;
  scratch.sizes.clear();  // an error may have left some
  scratch.cutting = 0;
  if (!text.empty()) Cutter{*this, give, scratch}.Run(0, text);
}

}  // namespace temper::engine
