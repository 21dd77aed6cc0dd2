#include "engine/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/added_tokens.h"
#include "engine/bpe.h"
#include "engine/normalizer.h"
#include "engine/pre_tokenizer.h"
#include "engine/utf8.h"

namespace temper::engine {
namespace {

using configs::Brief;
using configs::Quote;

constexpr std::int64_t kMaxId = (1 << 20) - 1;
// Each place of a text may be compared with a whole token.
constexpr std::size_t kMaxAddedToken = 512;

const Json* Member(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

bool Flag(const Json& json, const char* name, const std::string& where) {
  const Json* value = Member(json, name);
  if (!value) return false;
  if (value->is_boolean()) return value->get<bool>();
  throw UserError(where + ": " + name + ": " + Brief(*value) + " must be true or false");
}

void CheckDecoder(const Json& json, const std::string& path) {
  const Json* decoder = Member(json, "decoder");
  const Json* type = decoder && decoder->is_object() ? Member(*decoder, "type") : nullptr;
  if (!type || *type != "ByteLevel") {
    throw UserError(path + ": decoder: only ByteLevel is supported");
  }
}

PreTokenizer ReadPreTokenizer(const Json& json, const std::string& path) {
  const Json* part = Member(json, "pre_tokenizer");
  if (!part) throw UserError(path + ": pre_tokenizer is missing: ByteLevel is needed");
  return PreTokenizer(*part, path + ": pre_tokenizer");
}

Bpe ReadModel(const Json& json, const std::string& path) {
  const Json* part = Member(json, "model");
  if (!part) throw UserError(path + ": model is missing");
  return Bpe(*part, path + ": model");
}

}  // namespace

struct Tokenizer::State {
  Bpe bpe;
  PreTokenizer pre_tokenizer;
  Normalizer normalizer;
  // Two passes, as Hugging Face: tokens with "normalized": false first, the others in the text
  // between.
  std::optional<AddedTokenFinder> first, second;
  std::unordered_map<std::string, std::int32_t> added;
  std::vector<std::string> bytes;  // by id; "" for holes
  std::vector<bool> special;
  std::int32_t largest_added = -1;
  bool add_bos = false;
  std::int32_t bos = -1, eos = -1, pad = -1;
  std::string dir;
  std::once_flag chat_read;
  std::optional<ChatTemplates> chat;

  State(const Json& json, const std::string& path)
      : bpe(ReadModel(json, path)),
        pre_tokenizer(ReadPreTokenizer(json, path)),
        normalizer(Member(json, "normalizer"), path + ": normalizer") {
    CheckDecoder(json, path);
    bytes = bpe.TakeBytes();
    const Json* tokens = Member(json, "added_tokens");
    ReadAddedTokens(tokens ? *tokens : Json::array(), path + ": added_tokens");
    special.resize(bytes.size());
  }

  void SetBytes(std::int32_t id, const std::string& token) {
    if (static_cast<std::size_t>(id) >= bytes.size())
      bytes.resize(static_cast<std::size_t>(id) + 1);
    bytes[static_cast<std::size_t>(id)] = SymbolBytes(token);
  }

  void ReadAddedTokens(const Json& json, const std::string& where) {
    if (!json.is_array()) throw UserError(where + ": must be a list");
    std::vector<AddedToken> raw, normalized;
    std::unordered_set<std::string> texts;  // of the latter
    for (std::size_t i = 0; i < json.size(); ++i) {
      const std::string at = where + "[" + std::to_string(i) + "]";
      AddedToken token = ReadAddedToken(json[i], at);
      Register(token, at);
      const Json* flag = Member(json[i], "normalized");
      // Hugging Face's default: special tokens are not normalised, others are.
      const bool later = flag ? Flag(json[i], "normalized", at) : !token.special;
      if (later && !normalizer.empty()) {
        Normalize(&token, &texts, at);
        SetBytes(token.id, token.content);
      }
      (later ? normalized : raw).push_back(std::move(token));
    }
    if (!raw.empty()) first.emplace(std::move(raw));
    if (!normalized.empty()) second.emplace(std::move(normalized));
  }

  // Such tokens are looked for in normalised text and decoded to it.
  void Normalize(AddedToken* token, std::unordered_set<std::string>* others,
                 const std::string& at) const {
    const std::string text = normalizer.Apply(token->content);
    const bool twice = !others->insert(text).second;
    if (text.empty() || twice) {
      throw UserError(at + ": " + Quote(token->content) + ": the normalizer makes it " +
                      Quote(text) + (twice ? ", as another added token" : ""));
    }
    token->content = text;
  }

  static AddedToken ReadAddedToken(const Json& json, const std::string& at) {
    const Json* content = json.is_object() ? Member(json, "content") : nullptr;
    if (!content || !content->is_string() || content->get_ref<const std::string&>().empty()) {
      throw UserError(at + ": content must be a non-empty string");
    }
    if (content->get_ref<const std::string&>().size() > kMaxAddedToken) {
      throw UserError(at + ": content of " +
                      std::to_string(content->get_ref<const std::string&>().size()) +
                      " bytes: at most " + std::to_string(kMaxAddedToken) + " are supported");
    }
    const Json* id = Member(json, "id");
    if (!id) throw UserError(at + ": id is missing");
    AddedToken token;
    token.content = content->get<std::string>();
    token.id = static_cast<std::int32_t>(configs::GetInt(*id, at + ": id", 0, kMaxId));
    token.special = Flag(json, "special", at);
    token.single_word = Flag(json, "single_word", at);
    token.lstrip = Flag(json, "lstrip", at);
    token.rstrip = Flag(json, "rstrip", at);
    return token;
  }

  // One content has one id and one id has one content, in the vocabulary and the list together.
  // Hugging Face numbers tokens that the vocabulary lacks itself, whatever the file says: behind
  // the vocabulary and the tokens before.
  void Register(const AddedToken& token, const std::string& at) {
    const std::int32_t known = bpe.vocabulary().Find(token.content);
    const auto id = static_cast<std::size_t>(token.id);
    const bool taken = id < bytes.size() && !bytes[id].empty();
    if ((known >= 0 && known != token.id) || (known < 0 && taken) ||
        !added.emplace(token.content, token.id).second) {
      throw UserError(at + ": " + Quote(token.content) + " with id " + std::to_string(token.id) +
                      ": the token or the id already stands for another");
    }
    const std::int32_t next = std::max(largest_added + 1, bpe.vocabulary().count());
    if (known < 0 && token.id != next) {
      throw UserError(at + ": " + Quote(token.content) + " with id " + std::to_string(token.id) +
                      ": the ids of added tokens must follow the vocabulary's one by one: " +
                      std::to_string(next));
    }
    largest_added = std::max(largest_added, token.id);
    SetBytes(token.id, token.content);
    if (special.size() < bytes.size()) special.resize(bytes.size());
    if (token.special) special[id] = true;
  }

  void ReadConfig(const std::string& path) {
    configs::JsonLimits limits;
    limits.max_bytes = std::size_t{16} << 20;
    const Json json = configs::ReadJsonFile(dir, "tokenizer_config.json", limits);
    if (!json.is_object()) throw UserError(path + ": must be an object");
    add_bos = Flag(json, "add_bos_token", path);
    bos = NamedToken(json, "bos_token", path);
    eos = NamedToken(json, "eos_token", path);
    pad = NamedToken(json, "pad_token", path);
    if (add_bos && bos < 0) throw UserError(path + ": add_bos_token is true without bos_token");
  }

  std::int32_t NamedToken(const Json& json, const char* name, const std::string& path) const {
    const Json* value = Member(json, name);
    if (!value) return -1;
    const Json* text = value->is_object() ? Member(*value, "content") : value;
    if (!text || !text->is_string()) {
      throw UserError(path + ": " + name + ": " + Brief(*value) + " must name a token");
    }
    const std::string& token = text->get_ref<const std::string&>();
    const auto it = added.find(token);
    const std::int32_t id = it != added.end() ? it->second : bpe.vocabulary().Find(token);
    if (id < 0) {
      throw UserError(path + ": " + name + " " + Quote(token) + " is not in tokenizer.json");
    }
    return id;
  }

  void EncodePlain(std::string_view text, std::vector<std::int32_t>* ids) const {
    pre_tokenizer.Cut(text, [&](std::string_view piece) { bpe.Encode(piece, ids); });
  }
  static void EncodeAround(const std::optional<AddedTokenFinder>& finder, std::string_view text,
                           std::vector<std::int32_t>* ids,
                           const std::function<void(std::string_view)>& between) {
    if (!finder) {
      between(text);
      return;
    }
    finder->Cut(text, [&](std::string_view part, std::int32_t id) {
      if (id >= 0) {
        ids->push_back(id);
      } else {
        between(part);
      }
    });
  }
};

Tokenizer::Tokenizer(const std::string& dir) {
  const std::string path = dir + "/tokenizer.json";
  configs::JsonLimits limits;
  limits.max_bytes = std::size_t{64} << 20;
  limits.max_values = 4'000'000;  // a vocabulary of 128,000 tokens has 400,000
  const Json json = configs::ReadJsonFile(dir, "tokenizer.json", limits);
  if (!json.is_object()) throw UserError(path + ": must be an object");
  state_ = std::make_unique<State>(json, path);
  state_->dir = dir;
  const std::string config = dir + "/tokenizer_config.json";
  if (configs::Exists(config)) state_->ReadConfig(config);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::Encode(std::string_view text) const {
  const std::size_t bad = FindInvalidUtf8(text);
  if (bad != text.npos) {
    throw UserError("text to tokenize: byte " + std::to_string(bad) + " is not valid UTF-8");
  }
  std::vector<std::int32_t> ids;
  const State& s = *state_;
  State::EncodeAround(s.first, text, &ids, [&](std::string_view outer) {
    std::string normalized;
    if (!s.normalizer.empty()) outer = normalized = s.normalizer.Apply(outer);
    State::EncodeAround(s.second, outer, &ids,
                        [&](std::string_view plain) { s.EncodePlain(plain, &ids); });
  });
  return ids;
}

std::vector<std::int32_t> Tokenizer::EncodePrompt(std::string_view text) const {
  std::vector<std::int32_t> ids = Encode(text);
  if (state_->add_bos) ids.insert(ids.begin(), state_->bos);
  return ids;
}

const ChatTemplates& Tokenizer::chat() const {
  std::call_once(state_->chat_read, [this] { state_->chat.emplace(state_->dir); });
  return *state_->chat;
}

std::string Tokenizer::Decode(const std::vector<std::int32_t>& ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) bytes += Bytes(id, skip_special);
  return LossyUtf8(bytes);
}

// Ids without a token give nothing, as in Hugging Face's decoder.
std::string_view Tokenizer::Bytes(std::int32_t id, bool skip_special) const {
  if (id < 0 || id >= size() || (skip_special && IsSpecial(id))) return {};
  return state_->bytes[static_cast<std::size_t>(id)];
}

std::string Tokenizer::TokenBytes(std::int32_t id) const {
  if (id < 0 || id >= size() || IsSpecial(id)) return "";
  return state_->bytes[static_cast<std::size_t>(id)];
}

bool Tokenizer::add_bos() const { return state_->add_bos; }
std::int32_t Tokenizer::bos_id() const { return state_->bos; }
std::int32_t Tokenizer::eos_id() const { return state_->eos; }
std::int32_t Tokenizer::pad_id() const { return state_->pad; }
bool Tokenizer::IsSpecial(std::int32_t id) const {
  return id >= 0 && id < size() && state_->special[static_cast<std::size_t>(id)];
}
int Tokenizer::size() const { return static_cast<int>(state_->bytes.size()); }

}  // namespace temper::engine
