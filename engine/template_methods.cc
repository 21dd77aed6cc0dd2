// Methods of strings, dicts and lists.
#include <algorithm>
#include <array>
#include <functional>
#include <unordered_map>

#include "engine/template_calls.h"
#include "engine/unicode.h"
#include "engine/utf8.h"

namespace temper::engine::jinja {
namespace {

using MethodBody = Value (*)(const Value& self, Arguments& args, Meter* meter);
using MethodTable = std::unordered_map<std::string, MethodBody>;  // null: Python's, not ours

Value Text(std::string_view text, Meter* meter) { return Value::Text(std::string(text), meter); }

template <bool kLeft, bool kRight>
Value StripMethod(const Value& self, Arguments& args, Meter* meter) {
  return Text(Strip(self.text(), args.Take(0, "chars"), kLeft, kRight), meter);
}

bool SpaceAt(std::string_view text, std::size_t at) {
  int length = 0;
  return IsPythonSpace(DecodeUtf8(text.substr(at), &length));
}

std::size_t CharacterBegin(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// Words between white space; past the limit the rest is one part, stripped on one side only.
std::vector<std::string_view> SplitSpace(std::string_view text, std::int64_t most,
                                         bool from_right) {
  std::vector<std::string_view> parts;
  while (true) {
    text = Strip(text, nullptr, !from_right, from_right);
    if (text.empty()) break;
    std::size_t edge = from_right ? text.size() : 0;
    if (most-- == 0) {
      parts.push_back(text);
      break;
    }
    if (from_right) {
      while (edge > 0 && !SpaceAt(text, CharacterBegin(text, edge))) {
        edge = CharacterBegin(text, edge);
      }
    } else {
      while (edge < text.size() && !SpaceAt(text, edge)) {
        edge += static_cast<std::size_t>(Utf8Length(text.substr(edge, 4)));
      }
    }
    parts.push_back(from_right ? text.substr(edge) : text.substr(0, edge));
    text = from_right ? text.substr(0, edge) : text.substr(edge);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitText(std::string_view text, std::string_view separator,
                                        std::int64_t most, bool from_right) {
  std::vector<std::string_view> parts;
  while (most != 0) {
    const std::size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == text.npos) break;
    const std::size_t behind = at + separator.size();
    parts.push_back(from_right ? text.substr(behind) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(behind);
    --most;
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool kFromRight>
Value Split(const Value& self, Arguments& args, Meter* meter) {
  const Value* separator = args.Take(0, "sep");
  const Value* limit = args.Take(1, "maxsplit");
  const std::int64_t most = limit ? IntegerOf(*limit, "maxsplit") : -1;
  std::vector<std::string_view> parts;
  if (!separator || separator->IsNone()) {
    parts = SplitSpace(self.text(), most, kFromRight);
  } else {
    const std::string& text = TextOf(*separator, "a separator");
    if (text.empty()) throw Failure("an empty separator");
    parts = SplitText(self.text(), text, most, kFromRight);
  }
  List list;
  meter->Step(parts.size());
  for (const std::string_view part : parts) list.push_back(Text(part, meter));
  return Value::OfList(std::move(list), meter);
}

Value SplitLines(const Value& self, Arguments& args, Meter* meter) {
  const Value* keep = args.Take(0, "keepends");
  List lines;
  const std::string_view text = self.text();
  std::size_t from = 0;
  for (std::size_t at = 0; at < text.size();) {
    int length = 0;
    const std::uint32_t c = DecodeUtf8(text.substr(at), &length);
    std::size_t end = at + static_cast<std::size_t>(length);
    const bool feed = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (feed) {
      if (c == '\r' && end < text.size() && text[end] == '\n') ++end;
      meter->Step();
      lines.push_back(Text(text.substr(from, (keep && keep->Truth() ? end : at) - from), meter));
      from = end;
    }
    at = end;
  }
  if (from < text.size()) lines.push_back(Text(text.substr(from), meter));
  return Value::OfList(std::move(lines), meter);
}

template <bool kStart>
Value Affix(const Value& self, Arguments& args, Meter*) {
  const Value* affix = args.Take(0, "prefix");
  if (!affix) throw Failure("an argument is missing");
  const List one{*affix};
  for (const Value& value :
       affix->IsList() && affix->form() == Form::kTuple ? affix->list() : one) {
    const std::string& part = TextOf(value, "what a text starts or ends with");
    if (kStart ? self.text().starts_with(part) : self.text().ends_with(part))
      return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <bool kPrefix>
Value RemoveAffix(const Value& self, Arguments& args, Meter* meter) {
  const Value* affix = args.Take(0, "prefix");
  const std::string& part = TextOf(affix ? *affix : Value(), "what is removed");
  const std::string& text = self.text();
  if (kPrefix ? !text.starts_with(part) : !text.ends_with(part)) return self;
  return Text(kPrefix ? std::string_view(text).substr(part.size())
                      : std::string_view(text).substr(0, text.size() - part.size()),
              meter);
}

template <std::string (*kChange)(std::string_view)>
Value Changed(const Value& self, Arguments&, Meter* meter) {
  return Value::Text(kChange(self.text()), meter);
}

Value Replace(const Value& self, Arguments& args, Meter* meter) {
  const Value* from = args.Take(0, "old");
  const Value* to = args.Take(1, "new");
  const Value* count = args.Take(2, "count");
  if (!from || !to) throw Failure("an argument is missing");
  return Value::Text(
      Replaced(self.text(), TextOf(*from, "what is replaced"), TextOf(*to, "a replacement"),
               count ? IntegerOf(*count, "count") : -1),
      meter);
}

Value Join(const Value& self, Arguments& args, Meter* meter) {
  const Value* items = args.Take(0, "iterable");
  if (!items) throw Failure("an argument is missing");
  std::string out;
  bool first = true;
  for (const Value& item : Items(*items, meter)) {
    if (!first) out += self.text();
    first = false;
    out += TextOf(item, "what is joined");
    meter->Work(out.size() / 16);
    if (out.size() > std::size_t{16} << 20) throw Failure("a text too long");
  }
  return Value::Text(std::move(out), meter);
}

enum class Search { kFind, kRightFind, kIndex, kCount };
template <Search kSearch>
Value FindText(const Value& self, Arguments& args, Meter*) {
  const Value* part = args.Take(0, "sub");
  const std::string& text = self.text();
  const std::string& wanted = TextOf(part ? *part : Value(), "what is looked for");
  if (kSearch == Search::kCount) {
    if (wanted.empty()) return Value::Int(static_cast<std::int64_t>(CharacterStarts(text).size()));
    return Value::Int(static_cast<std::int64_t>(SplitText(text, wanted, -1, false).size()) - 1);
  }
  const std::size_t at = kSearch == Search::kRightFind ? text.rfind(wanted) : text.find(wanted);
  if (at == text.npos) {
    if (kSearch == Search::kIndex) throw Failure("the text looked for is not there");
    return Value::Int(-1);
  }
  return Value::Int(static_cast<std::int64_t>(CharacterStarts(text.substr(0, at)).size()) - 1);
}

template <bool kRight>
Value Partition(const Value& self, Arguments& args, Meter* meter) {
  const Value* separator = args.Take(0, "sep");
  const std::string& part = TextOf(separator ? *separator : Value(), "a separator");
  if (part.empty()) throw Failure("an empty separator");
  const std::string_view text = self.text();
  const std::size_t at = kRight ? text.rfind(part) : text.find(part);
  List out;
  if (at == text.npos) {
    out = {Text(kRight ? "" : text, meter), Text("", meter), Text(kRight ? text : "", meter)};
  } else {
    out = {Text(text.substr(0, at), meter), Text(part, meter),
           Text(text.substr(at + part.size()), meter)};
  }
  return Value::OfList(std::move(out), meter, Form::kTuple);
}

template <bool (*kIs)(char), bool kLetters>
Value AllAre(const Value& self, Arguments&, Meter*) {
  bool any = false;
  for (const char c : self.text()) {
    if (static_cast<unsigned char>(c) >= 0x80)
      throw Failure("this question about a non-ASCII text is not supported");
    // isupper and islower look at letters only.
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (kLetters && !letter) continue;
    if (!kIs(c)) return Value::Bool(false);
    any = true;
  }
  return Value::Bool(any);
}
bool Digit(char c) { return c >= '0' && c <= '9'; }
bool LowerLetter(char c) { return c >= 'a' && c <= 'z'; }
bool UpperLetter(char c) { return c >= 'A' && c <= 'Z'; }
bool Letter(char c) { return LowerLetter(c) || UpperLetter(c); }
bool LetterOrDigit(char c) { return Letter(c) || Digit(c); }

Value AllSpace(const Value& self, Arguments&, Meter*) {
  return Value::Bool(!self.text().empty() && Strip(self.text(), nullptr, true, false).empty());
}

Value ListIndex(const Value& self, Arguments& args, Meter* meter) {
  const Value* wanted = args.Take(0, "value");
  for (std::size_t i = 0; wanted && i < self.list().size(); ++i) {
    if (Equal(self.list()[i], *wanted, meter)) return Value::Int(static_cast<std::int64_t>(i));
  }
  throw Failure("the value looked for is not in the list");
}

Value ListCount(const Value& self, Arguments& args, Meter* meter) {
  const Value* wanted = args.Take(0, "value");
  std::int64_t count = 0;
  for (const Value& item : self.list()) count += wanted && Equal(item, *wanted, meter);
  return Value::Int(count);
}

Value Same(const Value& self, Arguments&, Meter*) { return self; }

Value DictGet(const Value& self, Arguments& args, Meter* meter) {
  const Value* key = args.Take(0, "key");
  const Value* absent = args.Take(1, "default");
  if (!key || key->IsList() || key->IsDict()) throw Failure("get needs a key");
  const Value* found = Find(self.dict(), *key, meter);
  return found ? *found : absent ? *absent : Value::None();
}

template <Form kForm>
Value DictView(const Value& self, Arguments&, Meter* meter) {
  List list;
  for (const auto& [key, value] : self.dict()) {
    list.push_back(kForm == Form::kKeys     ? key
                   : kForm == Form::kValues ? value
                                            : Value::OfList({key, value}, meter, Form::kTuple));
  }
  return Value::OfList(std::move(list), meter, kForm);
}

const MethodTable& TextMethods() {
  static const MethodTable table = {{"strip", StripMethod<true, true>},
                                    {"lstrip", StripMethod<true, false>},
                                    {"rstrip", StripMethod<false, true>},
                                    {"split", Split<false>},
                                    {"rsplit", Split<true>},
                                    {"splitlines", SplitLines},
                                    {"startswith", Affix<true>},
                                    {"endswith", Affix<false>},
                                    {"removeprefix", RemoveAffix<true>},
                                    {"removesuffix", RemoveAffix<false>},
                                    {"upper", Changed<Upper>},
                                    {"lower", Changed<Lower>},
                                    {"capitalize", Changed<Capitalized>},
                                    {"replace", Replace},
                                    {"join", Join},
                                    {"find", FindText<Search::kFind>},
                                    {"rfind", FindText<Search::kRightFind>},
                                    {"index", FindText<Search::kIndex>},
                                    {"count", FindText<Search::kCount>},
                                    {"partition", Partition<false>},
                                    {"rpartition", Partition<true>},
                                    {"isdigit", AllAre<Digit, false>},
                                    {"isdecimal", AllAre<Digit, false>},
                                    {"isnumeric", AllAre<Digit, false>},
                                    {"isalpha", AllAre<Letter, false>},
                                    {"isalnum", AllAre<LetterOrDigit, false>},
                                    {"islower", AllAre<LowerLetter, true>},
                                    {"isupper", AllAre<UpperLetter, true>},
                                    {"isspace", AllSpace},
                                    {"title", nullptr},
                                    {"casefold", nullptr},
                                    {"center", nullptr},
                                    {"encode", nullptr},
                                    {"expandtabs", nullptr},
                                    {"format", nullptr},
                                    {"format_map", nullptr},
                                    {"isascii", nullptr},
                                    {"isidentifier", nullptr},
                                    {"isprintable", nullptr},
                                    {"istitle", nullptr},
                                    {"ljust", nullptr},
                                    {"maketrans", nullptr},
                                    {"rindex", nullptr},
                                    {"rjust", nullptr},
                                    {"swapcase", nullptr},
                                    {"translate", nullptr},
                                    {"zfill", nullptr}};
  return table;
}

const MethodTable& ListMethods() {
  static const MethodTable table = {{"index", ListIndex}, {"count", ListCount}, {"copy", Same},
                                    {"append", nullptr},  {"clear", nullptr},   {"extend", nullptr},
                                    {"insert", nullptr},  {"pop", nullptr},     {"remove", nullptr},
                                    {"reverse", nullptr}, {"sort", nullptr}};
  return table;
}

const MethodTable& TupleMethods() {
  static const MethodTable table = {{"index", ListIndex}, {"count", ListCount}};
  return table;
}

const MethodTable& DictMethods() {
  static const MethodTable table = {{"get", DictGet},
                                    {"items", DictView<Form::kItems>},
                                    {"keys", DictView<Form::kKeys>},
                                    {"values", DictView<Form::kValues>},
                                    {"copy", Same},
                                    {"clear", nullptr},
                                    {"fromkeys", nullptr},
                                    {"pop", nullptr},
                                    {"popitem", nullptr},
                                    {"setdefault", nullptr},
                                    {"update", nullptr}};
  return table;
}

const MethodTable* TableOf(const Value& self) {
  if (self.IsText()) return &TextMethods();
  if (self.IsDict()) return &DictMethods();
  if (!self.IsList()) return nullptr;
  return self.form() == Form::kList    ? &ListMethods()
         : self.form() == Form::kTuple ? &TupleMethods()
                                       : nullptr;
}

}  // namespace

bool HasMethod(const Value& self, const std::string& name) {
  const MethodTable* table = TableOf(self);
  return table && table->count(name) > 0;
}

Value CallMethod(const Value& self, const std::string& name, Arguments& args, Meter* meter) {
  const MethodTable* table = TableOf(self);
  const auto found = table ? table->find(name) : MethodTable::const_iterator();
  if (!table || found == table->end() || !found->second) {
    throw Failure(std::string("the method ") + configs::Quote(name) + " of " + self.TypeName() +
                  " is not supported");
  }
  if (self.safe()) throw Failure("methods of a text marked safe are not supported");
  if (self.IsText()) meter->Work(self.text().size());
  Value result = found->second(self, args, meter);
  args.Done(name);
  return result;
}

}  // namespace temper::engine::jinja
