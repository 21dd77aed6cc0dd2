#include "engine/cuda/decoder.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "configs/error.h"
#include "kernels/sampling.h"

namespace temper::engine {

namespace cuda {

namespace kc = kernels::cuda;

namespace {

constexpr int kGraphRows = 256;      // longer steps are worth their launches
constexpr double kCacheShare = 0.9;  // of what is free once the weights are there

/// Rows of a captured step: few graphs, little padding.
int Bucket(int m) {
  if (m > kGraphRows) return m;
  if (m <= 8) {
    int bucket = 1;
    while (bucket < m) bucket *= 2;
    return bucket;
  }
  return (m + 7) / 8 * 8;
}

/// What the kernels throw becomes what the machine lacks.
template <typename Body>
auto Guarded(const Device& device, const Body& body) {
  try {
    device.Use();
    return body();
  } catch (const kc::CudaError& error) {
    throw MachineError(device.name() + ": " + error.what());
  }
}

bool Asked(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
}

std::size_t Aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

CudaDecoder::CudaDecoder(std::shared_ptr<const Weights> weights, const EngineOptions& options,
                         DeviceRange devices)
    : host_(std::move(weights)),
      options_(options),
      captures_(devices.count == 1 || Asked("TEMPER_DEVICE_GRAPHS")),
      device_(devices.first),
      others_(devices.count == 1
                  ? nullptr
                  : std::make_unique<ExpertDevices>(*host_, &device_, devices.count)),
      weights_(*host_, device_, {false, 0, devices.count}),
      forward_(*host_, weights_, device_, others_.get()) {
  const int v = host_->config().vocab_size;
  valid_ = options.valid_ids > 0 ? std::min(options.valid_ids, v) : v;
  device_.Check(cudaEventCreateWithFlags(&rows_taken_, cudaEventDisableTiming), "making an event");
  const int rows = options.max_rows + options.chunk;
  Guarded(device_, [&] { ReserveRows(rows, options.max_rows); });
}

CudaDecoder::~CudaDecoder() {
  try {
    device_.Wait();
  } catch (const MachineError&) {
    // It was said where the work was wanted.
  }
  DropGraphs();
  cudaEventDestroy(rows_taken_);
}

std::int64_t CudaDecoder::CacheBytes(int layers) const {
  return forward_.token_bytes() / host_->config().num_layers * layers;
}

CacheMemory CudaDecoder::TakeCache(std::int64_t page_bytes, std::int64_t max_pages) {
  std::int64_t pages = max_pages;
  if (pages == 0) {
    const double free = double(device_.free_bytes());
    pages = std::int64_t(free * kCacheShare) / page_bytes;
    if (pages < 2) {
      // Names what is wanted at least: one sequence of two pages.
      device_.Allocate(std::size_t(3 * page_bytes) + std::size_t(free),
                       "pages of the latent cache");
    }
  }
  // One page more, for the rows that fill a graph's shape.
  const std::size_t bytes = std::size_t(pages + 1) * std::size_t(page_bytes);
  cache_ = device_.Allocate(bytes, "pages of the latent cache");
  device_.Check(cudaMemsetAsync(cache_.get(), 0, bytes, device_.stream()), "clearing the cache");
  keys_.emplace(device_, pages * LatentCache::kPageTokens);
  return {cache_, pages};
}

void CudaDecoder::Grow(Mailbox* box, std::size_t bytes, const char* what) {
  if (bytes <= box->bytes) return;
  device_.Wait();
  *box = {};
  box->host = device_.AllocateHost(bytes);
  box->device = device_.Allocate(bytes, what);
  box->bytes = bytes;
}

void CudaDecoder::ReserveRows(int rows, int heads) {
  if (rows <= row_room_ && heads <= head_room_) return;
  device_.Wait();
  DropGraphs();  // while what they read is there
  rows = std::max(rows, row_room_);
  heads = std::max(heads, head_room_);
  forward_.Reserve(rows, heads);
  const std::size_t places = Aligned(8 * std::size_t(rows));
  const std::size_t ints = Aligned(4 * std::size_t(rows));
  Grow(&rows_, places + 4 * ints + 4 * std::size_t(heads), "a step's rows");
  std::byte* at = rows_.device.get();
  at_.place = reinterpret_cast<std::int64_t*>(at);
  at += places;
  for (std::int32_t** to : {&at_.ids, &at_.positions, &at_.count, &at_.table}) {
    *to = reinterpret_cast<std::int32_t*>(at);
    at += ints;
  }
  picked_ = reinterpret_cast<std::int32_t*>(at);
  row_room_ = rows;
  head_room_ = heads;
}

/// The host's half of rows_, by the addresses of the device's.
void CudaDecoder::Fill(const ForwardRows& rows, int padded, std::span<const int> heads) {
  const auto host = [&](auto* device) {
    return reinterpret_cast<decltype(device)>(
        rows_.host.get() + (reinterpret_cast<std::byte*>(device) - rows_.device.get()));
  };
  const std::int64_t token = forward_.token_bytes();
  longest_ = *std::max_element(rows.positions, rows.positions + rows.m) + 1;
  keys_->Begin(longest_);
  for (int r = 0; r < rows.m; ++r) {
    const int number = keys_->Add(*rows.sequences[r], rows.attention[r].count, cache_.get(), token);
    if (number < 0) {  // the table has grown: from the first row again
      r = -1;
      continue;
    }
    host(at_.ids)[r] = rows.ids[r];
    host(at_.positions)[r] = rows.positions[r];
    host(at_.count)[r] = rows.attention[r].count;
    host(at_.table)[r] = number;
    host(at_.place)[r] = (rows.latent[r] - cache_.get()) / token;
  }
  // Rows that only fill the shape: a sequence of one token whose place is nobody's.
  const std::int64_t nobody = std::int64_t(keys_->reserved());
  for (int r = rows.m; r < padded; ++r) {
    host(at_.ids)[r] = host(at_.positions)[r] = host(at_.table)[r] = 0;
    host(at_.count)[r] = 1;
    host(at_.place)[r] = nobody;
  }
  for (std::size_t i = 0; i < heads.size(); ++i) host(picked_)[i] = heads[i];
}

void CudaDecoder::Run(const ForwardRows& rows, std::span<const int> heads,
                      const Forward::Experts& experts) {
  Guarded(device_, [&] {
    // The scheduler has waited for the tokens of the last step, unless it had none.
    device_.Wait(rows_taken_);
    const int padded = Bucket(rows.m);
    ReserveRows(padded, int(heads.size()));
    Fill(rows, padded, heads);
    forward_.ReservePositions(longest_);
    if (keys_->Flush()) DropGraphs();
    at_.pages = keys_->pages();
    at_.ld_pages = keys_->ld();
    at_.cache = cache_.get();
    device_.Copy(rows_.device.get(), rows_.host.get(), rows_.bytes, cudaMemcpyHostToDevice);
    device_.Check(cudaEventRecord(rows_taken_, device_.stream()), "marking a step");
    Launch(padded, forward_.SplitsFor(padded, longest_));
    heads_ = int(heads.size());
    if (heads_ > 0) forward_.Logits(picked_, heads_);
    if (experts) TellExperts(rows.m, experts);
  });
}

void CudaDecoder::Launch(int m, int splits) {
  if (m > kGraphRows || !captures_) return forward_.Hidden(at_, m, splits);
  cudaGraphExec_t& graph = graphs_[{m, splits}];
  if (graph == nullptr) {
    cudaGraph_t recorded = nullptr;
    device_.Check(cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeThreadLocal),
                  "beginning a graph");
    try {
      forward_.Hidden(at_, m, splits);
    } catch (...) {
      cudaStreamEndCapture(device_.stream(), &recorded);
      if (recorded != nullptr) cudaGraphDestroy(recorded);
      graphs_.erase({m, splits});
      throw;
    }
    device_.Check(cudaStreamEndCapture(device_.stream(), &recorded), "ending a graph");
    const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
    cudaGraphDestroy(recorded);  // NCCL counts what holds its calls
    if (made != cudaSuccess) graphs_.erase({m, splits});
    device_.Check(made, "making a graph");
  }
  device_.Check(cudaGraphLaunch(graph, device_.stream()), "launching a step");
}

void CudaDecoder::DropGraphs() {
  for (const auto& [shape, graph] : graphs_) cudaGraphExecDestroy(graph);
  graphs_.clear();
}

void CudaDecoder::TellExperts(int m, const Forward::Experts& experts) {
  const ModelConfig& c = host_->config();
  const std::size_t each = std::size_t(m) * std::size_t(c.top_k);
  std::vector<std::int32_t> ids(each * std::size_t(c.moe_layers()));
  for (int layer = 0; layer < c.moe_layers(); ++layer) {
    device_.Copy(ids.data() + std::size_t(layer) * each, forward_.experts(layer), each * 4,
                 cudaMemcpyDeviceToHost);
  }
  device_.Wait();
  for (int layer = 0; layer < c.moe_layers(); ++layer)
    experts(layer, ids.data() + std::size_t(layer) * each);
}

std::vector<Drawn> CudaDecoder::Sample(std::span<const Draw> draws) {
  return Guarded(device_, [&] {
    const int v = host_->config().vocab_size, n = int(draws.size());
    const std::size_t in = Aligned(draws.size() * sizeof(kc::SampleRow));
    const std::size_t heads = Aligned(4 * std::size_t(heads_));
    const std::size_t scratch = Aligned(4 * std::size_t(kc::LogSoftmaxScratch(heads_, v)));
    const std::size_t out = in + 2 * heads + scratch;
    Grow(&draws_, out + draws.size() * sizeof(kc::SampledRow), "the tokens of a step");
    auto* const rows = reinterpret_cast<kc::SampleRow*>(draws_.host.get());
    auto* const temperature = reinterpret_cast<float*>(draws_.host.get() + in);
    std::fill_n(temperature, heads_, 1.0f);
    for (std::size_t i = 0; i < draws.size(); ++i) {
      const kernels::SampleParams& p = *draws[i].params;
      rows[i] = {draws[i].seed, draws[i].group, draws[i].sample, draws[i].position, p.temperature,
                 p.top_k,       p.top_p,        p.min_p,         draws[i].row};
      if (p.temperature > 0) temperature[draws[i].row] = p.temperature;
    }
    const auto device = [&](std::size_t at) { return draws_.device.get() + at; };
    device_.Copy(device(0), draws_.host.get(), in + heads, cudaMemcpyHostToDevice);
    kc::LogSoftmaxArgs a{};
    a.logits = forward_.logits();
    a.ld = a.v = v;
    a.m = heads_;
    a.temperature = reinterpret_cast<const float*>(device(in));
    a.lse = reinterpret_cast<float*>(device(in + heads));
    a.scratch = reinterpret_cast<float*>(device(in + 2 * heads));
    kc::LogSoftmax(a, device_.stream());
    kc::Sample(a.logits, v, n, v, valid_, a.lse, reinterpret_cast<const kc::SampleRow*>(device(0)),
               reinterpret_cast<kc::SampledRow*>(device(out)), device_.stream());
    device_.Copy(draws_.host.get() + out, device(out), draws.size() * sizeof(kc::SampledRow),
                 cudaMemcpyDeviceToHost);
    device_.Wait();
    std::vector<Drawn> drawn(draws.size());
    const auto* tokens = reinterpret_cast<const kc::SampledRow*>(draws_.host.get() + out);
    for (std::size_t i = 0; i < draws.size(); ++i) {
      drawn[i].token = {tokens[i].id, tokens[i].logp, tokens[i].logp_processed,
                        tokens[i].log_kept_mass};
    }
    CopyKept(draws, &drawn);
    return drawn;
  });
}

/// Lists of ids have no length that the host could foresee: their rows of logits come over.
void CudaDecoder::CopyKept(std::span<const Draw> draws, std::vector<Drawn>* drawn) {
  const int v = host_->config().vocab_size;
  std::vector<float> row(std::size_t(v), 0.0f);
  for (std::size_t i = 0; i < draws.size(); ++i) {
    if (!draws[i].kept) continue;
    device_.Copy(row.data(), forward_.logits() + std::int64_t{draws[i].row} * v, row.size() * 4,
                 cudaMemcpyDeviceToHost);
    device_.Wait();
    kernels::KeptIds(row.data(), v, valid_, *draws[i].params, &(*drawn)[i].kept);
  }
}

std::vector<Drawn> CudaDecoder::SampleFrom(std::span<const Draw>, const float*) {
  throw std::logic_error("CudaDecoder: drafts are not made on a device");
}

void CudaDecoder::WeightsChanged() {
  Guarded(device_, [&] {
    device_.Wait();
    const bool others_changed = others_ != nullptr && others_->Update();
    if (weights_.Update() || others_changed) DropGraphs();
  });
}

}  // namespace cuda

std::unique_ptr<Decoder> MakeCudaDecoder(std::shared_ptr<const Weights> weights,
                                         const EngineOptions& options, DeviceRange devices) {
  return std::make_unique<cuda::CudaDecoder>(std::move(weights), options, devices);
}

void CheckCudaDevice(int device) { const cuda::Device checked(device); }

}  // namespace temper::engine
