#include "reward/json_schema.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <string_view>

namespace temper::reward {
namespace {

constexpr int kMaxDepth = 32;

[[noreturn]] void Refuse(const std::string& what) {
  throw std::invalid_argument("option schema: " + what);
}

bool IsOneOf(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

bool HasType(const Json& value, const std::string& type) {
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && value.get<double>() == std::floor(value.get<double>()));
  }
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "array") return value.is_array();
  return value.is_object();
}

void CheckType(const Json& type) {
  for (const Json& name : type.is_array() ? type : Json::array({type})) {
    if (!name.is_string() ||
        !IsOneOf(name.get_ref<const std::string&>(),
                 {"integer", "number", "string", "boolean", "null", "array", "object"})) {
      Refuse("type " + configs::Brief(name) + " is none of JSON's");
    }
  }
}

void CheckKeyword(const std::string& key, const Json& value, int depth);

void Check(const Json& schema, int depth) {
  if (depth > kMaxDepth) Refuse("nested deeper than 32");
  if (schema.is_boolean()) return;
  if (!schema.is_object()) Refuse(configs::Brief(schema) + " must be an object");
  for (const auto& [key, value] : schema.items()) CheckKeyword(key, value, depth);
}

void CheckKeyword(const std::string& key, const Json& value, int depth) {
  if (IsOneOf(key, {"title", "description", "$schema", "$id", "default", "examples", "const"})) {
    return;
  }
  if (key == "type") return CheckType(value);
  if (IsOneOf(key, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) {
    if (!value.is_number()) Refuse(key + " must be a number");
  } else if (IsOneOf(key, {"minLength", "maxLength", "minItems", "maxItems"})) {
    if (!value.is_number_unsigned()) Refuse(key + " must be a count");
  } else if (key == "enum" || key == "required") {
    if (!value.is_array()) Refuse(key + " must be a list");
    for (const Json& item : value) {
      if (key == "required" && !item.is_string()) Refuse("required must be a list of names");
    }
  } else if (key == "anyOf" || key == "allOf") {
    if (!value.is_array()) Refuse(key + " must be a list");
    for (const Json& item : value) Check(item, depth + 1);
  } else if (IsOneOf(key, {"items", "not", "additionalProperties"})) {
    Check(value, depth + 1);
  } else if (key == "properties") {
    if (!value.is_object()) Refuse("properties must be an object");
    for (const auto& [name, item] : value.items()) Check(item, depth + 1);
  } else {
    Refuse("the keyword " + configs::Quote(key) + " is not known here");
  }
}

std::size_t CodePoints(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

bool FitsNumber(const Json& value, const std::string& key, const Json& bound) {
  if (!value.is_number()) return true;
  const double x = value.get<double>(), limit = bound.get<double>();
  if (key == "minimum") return x >= limit;
  if (key == "maximum") return x <= limit;
  return key == "exclusiveMinimum" ? x > limit : x < limit;
}

bool FitsSize(const Json& value, const std::string& key, const Json& bound) {
  const bool text = key == "minLength" || key == "maxLength";
  if (text ? !value.is_string() : !value.is_array()) return true;
  const std::size_t size = text ? CodePoints(value.get_ref<const std::string&>()) : value.size();
  const auto limit = bound.get<std::size_t>();
  return key.compare(0, 3, "min") == 0 ? size >= limit : size <= limit;
}

bool FitsObject(const Json& value, const Json& schema) {
  if (!value.is_object()) return true;
  const auto properties = schema.find("properties");
  const auto rest = schema.find("additionalProperties");
  for (const auto& [name, item] : value.items()) {
    const bool named = properties != schema.end() && properties->contains(name);
    if (named && !FitsSchema(item, (*properties)[name])) return false;
    if (!named && rest != schema.end() && !FitsSchema(item, *rest)) return false;
  }
  return true;
}

bool FitsKeyword(const Json& value, const std::string& key, const Json& bound) {
  const auto fits = [&](const Json& schema) { return FitsSchema(value, schema); };
  const auto equal = [&](const Json& other) { return value == other; };
  if (key == "type") {
    const Json types = bound.is_array() ? bound : Json::array({bound});
    return std::any_of(types.begin(), types.end(),
                       [&](const Json& type) { return HasType(value, type.get<std::string>()); });
  }
  if (key == "const") return value == bound;
  if (key == "enum") return std::any_of(bound.begin(), bound.end(), equal);
  if (key == "anyOf") return std::any_of(bound.begin(), bound.end(), fits);
  if (key == "allOf") return std::all_of(bound.begin(), bound.end(), fits);
  if (key == "not") return !fits(bound);
  if (key == "required") {
    return !value.is_object() || std::all_of(bound.begin(), bound.end(), [&](const Json& name) {
      return value.contains(name.get_ref<const std::string&>());
    });
  }
  if (key == "items") {
    return !value.is_array() || std::all_of(value.begin(), value.end(), [&](const Json& item) {
      return FitsSchema(item, bound);
    });
  }
  if (IsOneOf(key, {"minLength", "maxLength", "minItems", "maxItems"})) {
    return FitsSize(value, key, bound);
  }
  if (IsOneOf(key, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) {
    return FitsNumber(value, key, bound);
  }
  return true;
}

}  // namespace

void CheckSchema(const Json& schema) { Check(schema, 0); }

bool FitsSchema(const Json& value, const Json& schema) {
  if (schema.is_boolean()) return schema.get<bool>();
  for (const auto& [key, bound] : schema.items()) {
    if (!FitsKeyword(value, key, bound)) return false;
  }
  return FitsObject(value, schema);
}

}  // namespace temper::reward
