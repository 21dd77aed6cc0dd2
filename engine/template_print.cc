// How Python prints values: str(), repr() and json.dumps().
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "engine/template_value.h"
#include "engine/unicode.h"
#include "engine/utf8.h"

namespace temper::engine::jinja {
namespace {

constexpr int kMaxDepth = 100;
constexpr std::size_t kMaxText = std::size_t{16} << 20;

void AppendEscape(std::uint32_t c, std::string* out) {
  char text[16];
  std::snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
  *out += text;
}

std::string TextRepr(const std::string& text) {
  const bool doubled = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = doubled ? '"' : '\'';
  std::string out(1, quote);
  for (std::string_view rest = text; !rest.empty();) {
    int length = 0;
    const std::uint32_t c = DecodeUtf8(rest, &length);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == ' ' || (c < 0x7F ? c > ' ' : IsPrintable(c))) {
      out += rest.substr(0, static_cast<std::size_t>(length));
    } else {
      AppendEscape(c, &out);
    }
    rest.remove_prefix(static_cast<std::size_t>(length));
  }
  return out + quote;
}

class Printer {
 public:
  Printer(Meter* meter) : meter_(meter) {}

  void Repr(const Value& value, int depth) {
    if (depth > kMaxDepth) throw Failure("a value nested too deeply to be printed");
    meter_->Step();
    if (out.size() > kMaxText) throw Failure("a text too long to be printed");
    if (value.IsText()) {
      out += TextRepr(value.text());
    } else if (value.IsNone()) {
      out += "None";
    } else if (value.IsBool()) {
      out += value.integer() ? "True" : "False";
    } else if (value.IsInt()) {
      out += std::to_string(value.integer());
    } else if (value.IsFloat()) {
      out += FloatRepr(value.number());
    } else if (value.IsList()) {
      PrintList(value, depth);
    } else if (value.IsDict()) {
      PrintDict(value.dict(), depth);
    } else if (value.IsUndefined()) {
      out += "Undefined";
    } else {
      throw Failure("a namespace, macro, method or loop cannot be printed");
    }
  }

  std::string out;

 private:
  void PrintList(const Value& value, int depth) {
    constexpr const char* kBefore[] = {"[", "(", "dict_items([", "dict_keys([", "dict_values(["};
    constexpr const char* kBehind[] = {"]", ")", "])", "])", "])"};
    const auto form = static_cast<std::size_t>(value.form());
    if (value.form() == Form::kIterator) {
      throw Failure("an iterator cannot be printed: use the filter list or join");
    }
    out += kBefore[form];
    for (std::size_t i = 0; i < value.list().size(); ++i) {
      if (i > 0) out += ", ";
      Repr(value.list()[i], depth + 1);
    }
    if (value.form() == Form::kTuple && value.list().size() == 1) out += ',';
    out += kBehind[form];
  }

  void PrintDict(const Dict& dict, int depth) {
    out += '{';
    for (std::size_t i = 0; i < dict.size(); ++i) {
      if (i > 0) out += ", ";
      Repr(dict[i].first, depth + 1);
      out += ": ";
      Repr(dict[i].second, depth + 1);
    }
    out += '}';
  }

  Meter* meter_;
};

class JsonDumper {
 public:
  JsonDumper(const JsonStyle& style, Meter* meter) : style_(style), meter_(meter) {}

  void Dump(const Value& value, int depth) {
    if (depth > kMaxDepth) throw Failure("a value nested too deeply for tojson");
    meter_->Step();
    if (out.size() > kMaxText) throw Failure("a text too long for tojson");
    if (value.IsText()) {
      String(value.text());
    } else if (value.IsNone() || value.IsNumber()) {
      out += Scalar(value);
    } else if (value.IsList() && (value.form() == Form::kList || value.form() == Form::kTuple)) {
      Sequence(value.list(), depth);
    } else if (value.IsDict()) {
      Mapping(value.dict(), depth);
    } else {
      throw Failure(
          std::string("a value of type ") + value.TypeName() + " has no JSON" +
          (value.IsUndefined() && !value.missing().empty() ? ": " + value.missing() : ""));
    }
  }

  std::string out;

 private:
  static std::string Scalar(const Value& value) {
    if (value.IsNone()) return "null";
    if (value.IsBool()) return value.integer() ? "true" : "false";
    if (value.IsInt()) return std::to_string(value.integer());
    if (std::isnan(value.number())) return "NaN";
    if (std::isinf(value.number())) return value.number() < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(value.number());
  }

  void Unit(std::uint32_t unit) {
    char text[8];
    std::snprintf(text, sizeof text, "\\u%04x", unit & 0xFFFFu);
    out += text;
  }

  void String(const std::string& text) {
    out += '"';
    for (std::string_view rest = text; !rest.empty();) {
      int length = 0;
      const std::uint32_t c = DecodeUtf8(rest, &length);
      const std::size_t special = std::string_view("\"\\\n\r\t\b\f").find(static_cast<char>(c));
      if (c < 0x80 && special != std::string_view::npos) {
        out += '\\';
        out += "\"\\nrtbf"[special];
      } else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F)) {
        if (c >= 0x10000) Unit(0xD800 + ((c - 0x10000) >> 10));
        Unit(c < 0x10000 ? c : 0xDC00 + (c & 0x3FF));
      } else {
        out += rest.substr(0, static_cast<std::size_t>(length));
      }
      rest.remove_prefix(static_cast<std::size_t>(length));
    }
    out += '"';
  }

  void Line(int depth) {
    if (!style_.multiline) return;
    out += '\n';
    meter_->Work(static_cast<std::size_t>(depth) * style_.indent.size());
    for (int i = 0; i < depth; ++i) out += style_.indent;
  }

  void Sequence(const List& list, int depth) {
    if (list.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (i > 0) out += style_.item;
      Line(depth + 1);
      Dump(list[i], depth + 1);
    }
    Line(depth);
    out += ']';
  }

  void Mapping(const Dict& dict, int depth) {
    if (dict.empty()) {
      out += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> members;
    for (const auto& member : dict) members.push_back(&member);
    if (style_.sort_keys) {
      std::stable_sort(members.begin(), members.end(), [&](const auto* a, const auto* b) {
        return Compare(a->first, b->first, meter_) < 0;
      });
    }
    out += '{';
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (i > 0) out += style_.item;
      Line(depth + 1);
      const Value& key = members[i]->first;
      if (!key.IsText() && !key.IsNone() && !key.IsNumber()) {
        throw Failure("a JSON object's keys must be texts, numbers or none");
      }
      String(key.IsText() ? key.text() : Scalar(key));
      out += style_.key;
      Dump(members[i]->second, depth + 1);
    }
    Line(depth);
    out += '}';
  }

  const JsonStyle& style_;
  Meter* meter_;
};

}  // namespace

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char text[64];
  // Python writes out exponents from -4 to 15 and has two digits in the others.
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(text, text + sizeof text, value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string out(text, end.ptr);
  if (plain && out.find('.') == out.npos) out += ".0";
  return out;
}

std::string Str(const Value& value, Meter* meter) {
  if (value.IsText()) return value.text();
  if (value.IsUndefined()) return "";
  return Repr(value, meter);
}

std::string Repr(const Value& value, Meter* meter) {
  Printer printer(meter);
  printer.Repr(value, 0);
  meter->Work(printer.out.size());
  return std::move(printer.out);
}

std::string DumpJson(const Value& value, const JsonStyle& style, Meter* meter) {
  JsonDumper dumper(style, meter);
  dumper.Dump(value, 0);
  meter->Work(dumper.out.size());
  return std::move(dumper.out);
}

}  // namespace temper::engine::jinja
