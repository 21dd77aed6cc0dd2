#include "engine/vocabulary.h"

#include <bit>
#include <cstring>
#include <random>

#include "configs/error.h"

namespace temper::engine {

Vocabulary::Vocabulary(const Json& json, std::int64_t max_id, const std::string& where)
    : seed_(std::uint64_t{std::random_device()()} << 32 | std::random_device()()) {
  if (!json.is_object() || json.empty()) throw UserError(where + ": must map tokens to ids");
  count_ = static_cast<std::int32_t>(json.size());
  std::size_t bytes = 0;
  for (const auto& [token, value] : json.get_ref<const Json::object_t&>()) bytes += token.size();
  text_.reserve(bytes);
  entries_.assign(std::bit_ceil(json.size() * 2 + 2), Entry{0, -1});
  const std::size_t mask = entries_.size() - 1;
  for (const auto& [token, value] : json.get_ref<const Json::object_t&>()) {
    const auto id = static_cast<std::size_t>(configs::GetInt(value, where, 0, max_id));
    if (token.empty()) throw UserError(where + ": an empty token");
    if (id >= by_id_.size()) by_id_.resize(id + 1);
    if (by_id_[id].size > 0) {
      throw UserError(where + ": id " + std::to_string(id) + " stands twice, the second time for " +
                      configs::Quote(token));
    }
    by_id_[id] = {static_cast<std::uint32_t>(text_.size()),
                  static_cast<std::uint32_t>(token.size())};
    text_ += token;
    const std::uint64_t hash = Hash(token);
    std::size_t at = hash & mask;
    while (entries_[at].id >= 0) at = (at + 1) & mask;
    entries_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::int32_t>(id)};
  }
}

std::uint64_t Vocabulary::Hash(std::string_view token) const {
  std::uint64_t hash = seed_ ^ token.size();
  const auto mix = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  };
  std::uint64_t word = 0;
  for (; token.size() >= 8; token.remove_prefix(8)) {
    std::memcpy(&word, token.data(), 8);
    mix(word);
  }
  word = 0;
  std::memcpy(&word, token.data(), token.size());
  mix(word);
  return hash ^ hash >> 32;
}

std::int32_t Vocabulary::Find(std::string_view token) const {
  const std::uint64_t hash = Hash(token);
  const std::size_t mask = entries_.size() - 1;
  for (std::size_t at = hash & mask; entries_[at].id >= 0; at = (at + 1) & mask) {
    if (entries_[at].hash == hash >> 32 && Text(entries_[at].id) == token) return entries_[at].id;
  }
  return -1;
}

std::string_view Vocabulary::Text(std::int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const Place& place = by_id_[static_cast<std::size_t>(id)];
  return std::string_view(text_).substr(place.begin, place.size);
}

}  // namespace temper::engine
