#include "actor/weight_client.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "configs/error.h"
#include "configs/sha256.h"
#include "kernels/bf16.h"
#include "kernels/linear.h"
#include "wire/patch.h"
#include "wire/shared_bytes.h"

namespace temper::actor {
namespace {

std::size_t BytesOf(const std::string& dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "BF16") return 2;
  if (dtype == "F8_E4M3") return 1;
  return 0;
}

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

}  // namespace

WeightClient::WeightClient(std::shared_ptr<engine::Weights> weights, kernels::ThreadPool* pool)
    : weights_(std::move(weights)),
      pool_(pool),
      specs_(engine::RequiredTensors(weights_->config())) {}

void WeightClient::Run(std::size_t count, const std::function<void(std::size_t)>& part) const {
  if (pool_ && count > 1) {
    pool_->Run(static_cast<int>(count), [&](int i) { part(static_cast<std::size_t>(i)); });
  } else {
    for (std::size_t i = 0; i < count; ++i) part(i);
  }
}

void WeightClient::Start(const wire::WeightsManifest& manifest) {
  if (manifest_ && manifest_->session == manifest.session &&
      manifest_->version == manifest.version) {
    requested_ = received_;  // pulls under way were lost with the connection
    return;
  }
  std::vector<Piece> pieces = Plan(manifest);
  Stop();
  pieces_ = std::move(pieces);
  manifest_ = manifest;
  corrupt_here_ = 0;
  delta_ = MayPatch(manifest);
  if (delta_) {
    changes_.resize(manifest.delta_bytes);
    if (manifest.delta_bytes == 0) TakeDelta();
    return;
  }
  base_.reset();
  bytes_.resize(manifest.bytes);
}

bool WeightClient::MayPatch(const wire::WeightsManifest& manifest) const {
  if (!base_ || base_->session != manifest.session || base_->version != manifest.base) return false;
  // Sizes follow from names and dtypes, which a run never changes; checked all the same, because
  // they come from a peer.
  return base_->tensors.size() == manifest.tensors.size() && bytes_.size() == manifest.bytes;
}

std::vector<WeightClient::Piece> WeightClient::Plan(const wire::WeightsManifest& manifest) const {
  const std::string where = "weights v" + std::to_string(manifest.version) + ": ";
  const auto& tensors = manifest.tensors;
  const auto check = [&](std::size_t i, const std::string& name,
                         const std::vector<std::int64_t>& shape) {
    const bool there = i < tensors.size();
    if (there && tensors[i].name == name && tensors[i].shape == shape) return;
    throw UserError(
        where +
        (there ? tensors[i].name + " " + ShapeText(tensors[i].shape) : "the end of its tensors") +
        " where the model's config.json wants " + name + " " + ShapeText(shape));
  };
  const auto check_size = [&](const wire::WeightsManifest::Tensor& t, std::size_t element) {
    std::uint64_t bytes = element;
    for (const std::int64_t n : t.shape) bytes *= static_cast<std::uint64_t>(n);
    if (t.end - t.begin == bytes) return;
    throw UserError(where + t.name + " has " + std::to_string(t.end - t.begin) +
                    " bytes, its shape needs " + std::to_string(bytes));
  };
  std::vector<Piece> pieces;
  std::size_t next = 0;
  for (const engine::TensorSpec& spec : specs_) {
    check(next, spec.name, spec.shape);
    const auto& t = tensors[next];
    const bool coded = t.dtype == "F8_E4M3";
    const std::size_t size = BytesOf(t.dtype);
    if (size == 0 || (coded && spec.kind != engine::TensorSpec::Kind::kLinear)) {
      throw UserError(where + t.name + " is " + t.dtype +
                      "; this actor reads F32 and BF16, and matrices of layers as F8_E4M3");
    }
    check_size(t, size);
    pieces.push_back({&spec, next++, coded});
    if (!coded) continue;
    const auto blocks = [](std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; };
    check(next, spec.name + "_scale_inv", {blocks(spec.shape[0]), blocks(spec.shape[1])});
    if (tensors[next].dtype != "F32")
      throw UserError(where + tensors[next].name + " is " + tensors[next].dtype +
                      " instead of F32");
    check_size(tensors[next++], sizeof(float));
  }
  if (next != tensors.size()) {
    throw UserError(where + std::to_string(tensors.size()) +
                    " tensors, the model's config.json wants " + std::to_string(next));
  }
  return pieces;
}

void WeightClient::Stop() {
  manifest_.reset();
  delta_ = lent_ = false;
  changes_ = {};
  requested_ = received_ = 0;
  verified_ = applied_ = 0;
}

std::vector<wire::WeightsPull> WeightClient::Pulls() {
  std::vector<wire::WeightsPull> pulls;
  if (!manifest_ || lent_) return pulls;
  const std::uint64_t size = delta_ ? manifest_->delta_bytes : manifest_->bytes;
  while (requested_ < size && requested_ - received_ < kWindow * kChunk) {
    const auto length =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunk, size - requested_));
    pulls.push_back({manifest_->version, requested_, length, delta_});
    requested_ += length;
  }
  return pulls;
}

void WeightClient::Take(const wire::WeightsChunk& chunk, bool apply_now) {
  const std::uint64_t size = chunk.data.view.size();
  if (!manifest_ || lent_ || chunk.version != manifest_->version || chunk.delta != delta_ ||
      chunk.offset != received_ || size > requested_ - received_) {
    return;
  }
  std::vector<std::byte>& to = delta_ ? changes_ : bytes_;
  if (size > 0) std::memcpy(to.data() + received_, chunk.data.view.data(), size);
  received_ += size;
  pulled_ += size;
  if (delta_) {
    if (received_ == manifest_->delta_bytes) TakeDelta();
  } else {
    TakeFull();
  }
  if (apply_now) SetVerified();
}

void WeightClient::Fetch(const std::string& path, bool apply_now) {
  if (!pulling() || delta_ || received_ > 0 || lent_) return;
  const wire::SharedView view(path, bytes_.size());
  if (view.data() != nullptr) TakeAll(view.data(), apply_now);
}

std::optional<std::vector<std::byte>> WeightClient::Lend() {
  if (!pulling() || delta_ || received_ > 0 || lent_) return std::nullopt;
  lent_ = true;
  requested_ = 0;  // chunks on their way would find no memory
  return std::move(bytes_);
}

void WeightClient::GiveBack(std::vector<std::byte> bytes, bool apply_now) {
  if (!lent_) return;
  lent_ = false;
  bytes_ = std::move(bytes);
  TakeAll(nullptr, apply_now);
}

void WeightClient::TakeAll(const std::byte* from, bool apply_now) {
  std::vector<std::size_t> all(manifest_->tensors.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const std::optional<std::size_t> bad = FirstBad(all, from);
  verified_ = bad.value_or(all.size());
  received_ = requested_ = bad ? manifest_->tensors[*bad].begin : manifest_->bytes;
  if (apply_now) SetVerified();
}

void WeightClient::TakeFull() {
  std::vector<std::size_t> whole;
  for (std::size_t i = verified_;
       i < manifest_->tensors.size() && manifest_->tensors[i].end <= received_; ++i) {
    whole.push_back(i);
  }
  const std::optional<std::size_t> bad = FirstBad(whole);
  verified_ = bad.value_or(verified_ + whole.size());
  if (bad) Corrupt(*bad);
}

void WeightClient::TakeDelta() {
  // From here on bytes_ are of no version until the last tensor is verified.
  const std::vector<Base::Tensor> before = std::move(base_->tensors);
  base_.reset();
  std::vector<std::size_t> changed;
  for (std::size_t i = 0; i < manifest_->tensors.size(); ++i) {
    const auto& t = manifest_->tensors[i];
    const bool same =
        t.form == wire::DeltaForm::kSame && t.sha256 == before[i].sha256 && t.end == before[i].end;
    if (same) continue;
    if (!Patch(i)) return Corrupt(i);
    changed.push_back(i);
  }
  if (const std::optional<std::size_t> bad = FirstBad(changed)) return Corrupt(*bad);
  verified_ = manifest_->tensors.size();
}

bool WeightClient::Patch(std::size_t tensor) {
  const auto& t = manifest_->tensors[tensor];
  const auto piece =
      std::span<const std::byte>(changes_).subspan(t.delta_begin, t.delta_end - t.delta_begin);
  const auto bytes = std::span<std::byte>(bytes_).subspan(t.begin, t.end - t.begin);
  if (t.form == wire::DeltaForm::kFull) {
    if (!piece.empty()) std::memcpy(bytes.data(), piece.data(), piece.size());
    return true;
  }
  return wire::ApplyPatch(piece, BytesOf(t.dtype), bytes);
}

/// The first of these whose bytes are not the manifest's.
std::optional<std::size_t> WeightClient::FirstBad(const std::vector<std::size_t>& tensors,
                                                  const std::byte* from) {
  constexpr std::size_t kTogether = 4;  // of a part: hashes go two at a time
  std::vector<char> good(tensors.size());
  Run((good.size() + kTogether - 1) / kTogether, [&](std::size_t part) {
    const std::size_t first = part * kTogether, last = std::min(first + kTogether, good.size());
    std::vector<std::span<const std::byte>> texts;
    for (std::size_t i = first; i < last; ++i) {
      const auto& t = manifest_->tensors[tensors[i]];
      if (from) std::memcpy(bytes_.data() + t.begin, from + t.begin, t.end - t.begin);
      texts.push_back(std::span<const std::byte>(bytes_).subspan(t.begin, t.end - t.begin));
    }
    const std::vector<std::string> hashes = configs::Sha256Hex(texts);
    for (std::size_t i = first; i < last; ++i)
      good[i] = hashes[i - first] == manifest_->tensors[tensors[i]].sha256;
  });
  const auto bad = std::find(good.begin(), good.end(), 0);
  if (bad == good.end()) return std::nullopt;
  return tensors[static_cast<std::size_t>(bad - good.begin())];
}

void WeightClient::Corrupt(std::size_t tensor) {
  const auto& t = manifest_->tensors[tensor];
  ++corrupt_;
  if (++corrupt_here_ > kMaxCorrupt) {
    const std::string what = "weights v" + std::to_string(manifest_->version) + ": " + t.name +
                             " arrived with another SHA-256 than the learner published, " +
                             std::to_string(corrupt_here_) + " times";
    Stop();
    throw MachineError(what);
  }
  if (!delta_) {
    received_ = requested_ = t.begin;
    return;
  }
  delta_ = false;
  received_ = requested_ = verified_ = applied_ = 0;
}

void WeightClient::SetVerified() {
  const std::size_t first = applied_;
  while (applied_ < pieces_.size() && pieces_[applied_].last() < verified_) ++applied_;
  Run(applied_ - first, [&](std::size_t i) { Set(pieces_[first + i]); });
}

std::uint32_t WeightClient::Apply() {
  if (!complete()) throw std::logic_error("WeightClient::Apply: not complete");
  SetVerified();
  const std::uint32_t version = manifest_->version;
  base_ = Base{manifest_->session, version, {}};
  for (const auto& t : manifest_->tensors) base_->tensors.push_back({t.end, t.sha256});
  Stop();
  return version;
}

void WeightClient::Set(const Piece& piece) const {
  const auto& t = manifest_->tensors[piece.tensor];
  // In place already, with the version before.
  const auto same = [&](std::size_t i) {
    return manifest_->tensors[i].form == wire::DeltaForm::kSame;
  };
  if (delta_ && same(piece.tensor) && same(piece.last())) return;
  const std::byte* from = bytes_.data() + t.begin;
  std::vector<float> values;  // tensors lie without gaps: floats may start anywhere
  if (piece.coded) {
    const auto& s = manifest_->tensors[piece.last()];
    values.resize((s.end - s.begin) / sizeof(float));
    std::memcpy(values.data(), bytes_.data() + s.begin, s.end - s.begin);
    weights_->Set(t.name,
                  {{}, {reinterpret_cast<const std::uint8_t*>(from), t.end - t.begin}, values});
    return;
  }
  values.resize(static_cast<std::size_t>(piece.spec->count()));
  if (t.dtype == "F32") {
    if (!values.empty()) std::memcpy(values.data(), from, values.size() * sizeof(float));
  } else {
    std::vector<std::uint16_t> codes(values.size());
    std::memcpy(codes.data(), from, t.end - t.begin);
    kernels::DecodeBf16(codes.data(), static_cast<std::int64_t>(codes.size()), values.data());
  }
  weights_->Set(t.name, values);
}

}  // namespace temper::actor
