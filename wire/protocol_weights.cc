#include "wire/protocol_fields.h"

namespace temper::wire {

void WeightsManifest::Fabric::AddTo(Message* manifest) const {
  manifest->header["fabric"] = HexBytes(group);
  manifest->header["rank"] = rank;
  manifest->header["ranks"] = ranks;
}

Message WeightsManifest::Encode() const {
  Message m = Start(Kind::kWeightsManifest);
  m.header = {{"session", Hex(session)}, {"version", version}, {"bytes", bytes}};
  if (base) {
    m.header["base"] = *base;
    m.header["delta_bytes"] = delta_bytes;
  }
  if (!shared.empty()) m.header["shared"] = shared;
  if (fabric) fabric->AddTo(&m);
  Json list = Json::array();
  for (const Tensor& t : tensors) {
    Json tensor = {{"name", t.name},   {"dtype", t.dtype}, {"shape", t.shape},
                   {"begin", t.begin}, {"end", t.end},     {"sha256", t.sha256}};
    if (base) tensor["delta"] = {static_cast<int>(t.form), t.delta_begin, t.delta_end};
    list.push_back(std::move(tensor));
  }
  // A large model's list is longer than an array may be.
  const std::string text = DumpLossy(list);
  for (std::size_t at = 0; at < text.size(); at += kMaxFrameBytes)
    m.AddText(std::string_view(text).substr(at, kMaxFrameBytes));
  return m;
}

namespace {

constexpr std::size_t kGroupBytes = 128;
constexpr std::int64_t kMaxRanks = 1 << 16;
constexpr std::size_t kMaxLists = 8;

/// [form, begin, end] of a tensor in the delta, behind `at`.
void ReadDelta(const Entry& entry, std::uint64_t at, WeightsManifest::Tensor* tensor) {
  const Fields& t = entry.fields();
  const Json& delta = List(t, entry.json(), "delta");
  if (delta.size() != 3) t.Fail("delta must be [form, begin, end]");
  std::uint64_t numbers[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (!delta[i].is_number_integer() || delta[i] < 0) t.Fail("delta must hold sizes");
    numbers[i] = delta[i].get<std::uint64_t>();
  }
  tensor->delta_begin = numbers[1];
  tensor->delta_end = numbers[2];
  const std::uint64_t size = tensor->end - tensor->begin;
  const bool follows = numbers[1] == at && numbers[2] >= at;
  if (numbers[0] > 2 || !follows || (numbers[0] == 0 && numbers[2] != at) ||
      (numbers[0] == 2 && numbers[2] - at != size)) {
    t.Fail(tensor->name + ": its piece of the delta breaks the rule of its form");
  }
  tensor->form = static_cast<DeltaForm>(numbers[0]);
}

WeightsManifest::Tensor ReadTensor(const Entry& entry, std::uint64_t at) {
  const Fields& t = entry.fields();
  WeightsManifest::Tensor tensor;
  tensor.name = t.Text("name");
  tensor.dtype = t.Text("dtype");
  for (const Json& dim : List(t, entry.json(), "shape")) {
    if (!dim.is_number_integer() || dim < 0) t.Fail("shape must hold sizes");
    tensor.shape.push_back(dim.get<std::int64_t>());
  }
  tensor.begin = static_cast<std::uint64_t>(t.Int("begin", 0, kMaxI64));
  tensor.end = static_cast<std::uint64_t>(t.Int("end", 0, kMaxI64));
  tensor.sha256 = t.Text("sha256");
  if (tensor.begin != at || tensor.end < tensor.begin) {
    t.Fail(tensor.name + ": bytes must follow each other without a hole");
  }
  return tensor;
}

}  // namespace

WeightsManifest WeightsManifest::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kWeightsManifest, "weights_manifest");
  WeightsManifest manifest;
  if (fields.Has("shared")) manifest.shared = fields.Text("shared");
  if (fields.Has("fabric")) {
    Fabric& fabric = manifest.fabric.emplace();
    fabric.group = BytesFromHex(fields, "fabric", kGroupBytes);
    fabric.ranks = static_cast<int>(fields.Int("ranks", 2, kMaxRanks));
    fabric.rank = static_cast<int>(fields.Int("rank", 1, fabric.ranks - 1));
  }
  manifest.session = U64FromHex(fields, "session");
  manifest.version = static_cast<std::uint32_t>(fields.Int("version", 0, kMaxU32));
  manifest.bytes = static_cast<std::uint64_t>(fields.Int("bytes", 0, kMaxI64));
  if (fields.Has("base")) {
    manifest.base = static_cast<std::uint32_t>(fields.Int("base", 0, kMaxU32));
    manifest.delta_bytes = static_cast<std::uint64_t>(fields.Int("delta_bytes", 0, kMaxI64));
  }
  std::uint64_t at = 0, delta_at = 0;
  if (message.arrays.empty() || message.arrays.size() > kMaxLists)
    fields.Fail(std::to_string(message.arrays.size()) + " arrays; 1 to " +
                std::to_string(kMaxLists) + " belong to it");
  std::string text;
  for (std::size_t i = 0; i < message.arrays.size(); ++i) {
    const Bytes& raw = fields.Raw(i);
    text.append(reinterpret_cast<const char*>(raw.view.data()), raw.view.size());
  }
  for (const Json& json : ParseListText(fields, text, "weights_manifest tensors")) {
    const Entry entry(json, "weights_manifest tensor");
    Tensor tensor = ReadTensor(entry, at);
    at = tensor.end;
    if (manifest.base) {
      ReadDelta(entry, delta_at, &tensor);
      delta_at = tensor.delta_end;
    }
    manifest.tensors.push_back(std::move(tensor));
  }
  if (at != manifest.bytes) fields.Fail("tensors end before or after the declared bytes");
  if (delta_at != manifest.delta_bytes) fields.Fail("pieces end before or after delta_bytes");
  return manifest;
}

Message WeightsPull::Encode() const {
  Message m = Start(Kind::kWeightsPull);
  m.header = {{"version", version}, {"offset", offset}, {"length", length}};
  if (delta) m.header["delta"] = true;
  return m;
}

WeightsPull WeightsPull::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kWeightsPull, "weights_pull");
  return {static_cast<std::uint32_t>(fields.Int("version", 0, kMaxU32)),
          static_cast<std::uint64_t>(fields.Int("offset", 0, kMaxI64)),
          static_cast<std::uint32_t>(fields.Int("length", 1, kMaxChunkBytes)),
          fields.Has("delta") && fields.Bool("delta")};
}

Message WeightsChunk::Encode() const {
  Message m = Start(Kind::kWeightsChunk);
  m.header = {{"version", version}, {"offset", offset}};
  if (delta) m.header["delta"] = true;
  m.arrays.push_back({ArrayType::kU8, data});
  return m;
}

WeightsChunk WeightsChunk::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kWeightsChunk, "weights_chunk");
  fields.ExpectArrays(1);
  return {static_cast<std::uint32_t>(fields.Int("version", 0, kMaxU32)),
          static_cast<std::uint64_t>(fields.Int("offset", 0, kMaxI64)), fields.Raw(0),
          fields.Has("delta") && fields.Bool("delta")};
}

Message WeightsLoaded::Encode() const {
  Message m = Start(Kind::kWeightsLoaded);
  m.header = {{"session", Hex(session)}, {"version", version}};
  if (canary) m.header["canary"] = *canary;
  return m;
}

WeightsLoaded WeightsLoaded::Decode(const Message& message) {
  const Fields fields = Open(message, Kind::kWeightsLoaded, "weights_loaded");
  WeightsLoaded loaded;
  loaded.session = U64FromHex(fields, "session");
  loaded.version = static_cast<std::uint32_t>(fields.Int("version", 0, kMaxU32));
  if (fields.Has("canary")) {
    loaded.canary = static_cast<std::uint32_t>(fields.Int("canary", 0, kMaxU32));
  }
  return loaded;
}

}  // namespace temper::wire
