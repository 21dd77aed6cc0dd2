#include "engine/cuda/experts.h"

#include <algorithm>

#include "configs/error.h"

namespace temper::engine::cuda {

namespace kc = kernels::cuda;

void RunMlp(const Numerics& numerics, const DeviceMlp& w, const float* in,
            const std::int32_t* offset, int m, MlpRoom room, float* out, cudaStream_t stream) {
  const int width = w.down.w.k, h = w.down.w.n;
  const auto by_expert = [&](DeviceLinear linear) {
    linear.groups.offset = offset;
    return linear;
  };
  const LinearInput input = PrepareInput(numerics, w.gate_up, in, h, m, room.linear, stream);
  RunLinear(by_expert(w.gate_up), input, m, room.gate_up, 2 * width, stream);
  if (w.up.w.n > 0) RunLinear(by_expert(w.up), input, m, room.gate_up + width, 2 * width, stream);
  kc::SwiGlu(room.gate_up, 2 * width, m, width, room.gated, width, {}, stream);
  const LinearInput gated =
      PrepareInput(numerics, w.down, room.gated, width, m, room.linear, stream);
  RunLinear(by_expert(w.down), gated, m, out, h, stream);
}

struct ExpertDevices::Other {
  Other(const Weights& host, int number, int part, int parts)
      : device(number),
        weights(host, device, {false, part, parts}),
        first_expert(FirstExpert(host.config().experts, part, parts)) {
    device.Check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "making an event");
  }
  ~Other() { cudaEventDestroy(done); }

  Device device;
  DeviceWeights weights;
  int first_expert;
  Arena arena;
  float *normed = nullptr, *gathered = nullptr, *out = nullptr;
  std::int32_t *source = nullptr, *offset = nullptr;
  MlpRoom room{};
  cudaEvent_t done = nullptr;
};

ExpertDevices::ExpertDevices(const Weights& weights, Device* first, int count)
    : c_(weights.config()),
      numerics_(weights.numerics()),
      first_(*first),
      name_(first->name() + "-" + std::to_string(first->number() + count - 1)) {
  if (c_.moe_layers() == 0 || c_.experts < count) {
    throw UserError("device: " + name_ + " spreads experts over " + std::to_string(count) +
                    " devices; this model has " +
                    std::to_string(c_.moe_layers() == 0 ? 0 : c_.experts) +
                    "; choose fewer devices");
  }
  const Nccl& nccl = LoadNccl();
  std::vector<int> numbers = {first_.number()};
  for (int part = 1; part < count; ++part) {
    numbers.push_back(first_.number() + part);
    others_.push_back(std::make_unique<Other>(weights, numbers.back(), part, count));
  }
  first_.Use();
  first_.Check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "making an event");
  comms_.resize(numbers.size());
  CheckNccl(nccl, nccl.CommInitAll(comms_.data(), count, numbers.data()), name_,
            "bringing them together");
  first_.LookWhileWaiting([this](double waited) { Look(waited); });
  Reserve(1);
  Meet();
}

/// NCCL connects devices at their first call of a kind, which must not fall into a capture.
void ExpertDevices::Meet() {
  const Nccl& nccl = LoadNccl();
  const auto word = first_.Allocate(4, "a first exchange");
  const auto at = [&](std::size_t rank) -> void* {
    return rank == 0 ? word.get() : static_cast<void*>(others_[rank - 1]->source);
  };
  Together("a first broadcast", [&](std::size_t rank, cudaStream_t stream) {
    return nccl.Broadcast(at(rank), at(rank), 4, kNcclUint8, 0, comms_[rank], stream);
  });
  Together("a first reduction", [&](std::size_t rank, cudaStream_t stream) {
    return nccl.Reduce(at(rank), at(rank), 1, kNcclUint32, kNcclSum, 0, comms_[rank], stream);
  });
  first_.Wait();
  for (const auto& other : others_) other->device.Wait();
}

ExpertDevices::~ExpertDevices() {
  first_.LookWhileWaiting(nullptr);
  if (!ended_) {
    // A graph's work on the others has ended when the first's stream has.
    cudaStreamSynchronize(first_.stream());
    for (const auto& other : others_) cudaStreamSynchronize(other->device.stream());
    for (NcclComm comm : comms_) LoadNccl().CommDestroy(comm);
  }
  others_.clear();
  cudaEventDestroy(forked_);
}

void ExpertDevices::Look(double waited) {
  if (ended_) throw MachineError(name_ + ": a device has failed before");
  const Nccl& nccl = LoadNccl();
  std::string problem;
  for (std::size_t i = 0; i < comms_.size() && problem.empty(); ++i) {
    const Device& device = i == 0 ? first_ : others_[i - 1]->device;
    device.Use();
    const cudaError_t status = cudaStreamQuery(device.stream());
    int state = kNcclSuccess;
    nccl.CommGetAsyncError(comms_[i], &state);
    if (status != cudaSuccess && status != cudaErrorNotReady)
      problem = device.name() + ": computing: " + cudaGetErrorString(status);
    else if (state != kNcclSuccess && state != kNcclInProgress)
      problem = device.name() + ": NCCL: " + nccl.GetErrorString(state);
  }
  first_.Use();
  if (problem.empty() && waited < kPatience) return;
  if (problem.empty())
    problem = name_ + ": no end of a step within " + std::to_string(int(kPatience)) + " s";
  // The others' exchanges would wait for the failed one's for ever.
  ended_ = true;
  for (NcclComm comm : comms_) nccl.CommAbort(comm);
  throw MachineError(problem + "; nvidia-smi and the kernel's log may say why");
}

template <typename Call>
void ExpertDevices::Together(const char* doing, const Call& call) {
  const Nccl& nccl = LoadNccl();
  CheckNccl(nccl, nccl.GroupStart(), name_, doing);
  int result = call(0, first_.stream());
  for (std::size_t i = 0; i < others_.size() && result == kNcclSuccess; ++i)
    result = call(i + 1, others_[i]->device.stream());
  const int ended = nccl.GroupEnd();  // whatever the calls said: a group left open takes all others
  CheckNccl(nccl, result != kNcclSuccess ? result : ended, name_, doing);
}

void ExpertDevices::Reserve(int rows) {
  if (rows <= rows_) return;
  rows_ = 0;
  for (const auto& other : others_) {
    other->device.Use();
    other->device.Wait();
    other->arena.Clear();
    Lay(other.get(), rows);
    other->arena.Commit(other->device,
                        "the experts' results of a step of " + std::to_string(rows) + " rows");
    Lay(other.get(), rows);
  }
  first_.Use();
  rows_ = rows;
}

void ExpertDevices::Lay(Other* o, int rows) {
  const std::int64_t m = rows, h = c_.hidden_size, width = c_.moe_intermediate_size;
  const std::int64_t pairs = m * c_.top_k;
  o->normed = o->arena.Take<float>(m * h);
  o->gathered = o->arena.Take<float>(pairs * h);
  o->out = o->arena.Take<float>(pairs * h);
  o->source = o->arena.Take<std::int32_t>(pairs);
  o->offset = o->arena.Take<std::int32_t>(c_.experts + 1);
  o->room.gate_up = o->arena.Take<float>(2 * pairs * width);
  o->room.gated = o->arena.Take<float>(pairs * width);
  const std::int64_t numbers =
      pairs * std::max(kc::TensorWidth(c_.hidden_size), kc::TensorWidth(int(width)));
  o->room.linear.inputs = o->arena.Take(std::size_t(4 * numbers));
  o->room.linear.scales = o->arena.Take<float>(numbers / kernels::kPanel);
}

bool ExpertDevices::Update() {
  bool retyped = false;
  for (const auto& other : others_) {
    other->device.Use();
    other->device.Wait();
    retyped = other->weights.Update() || retyped;
  }
  first_.Use();
  return retyped;
}

void ExpertDevices::Fork() {
  first_.Check(cudaEventRecord(forked_, first_.stream()), "marking a step");
  for (const auto& other : others_)
    first_.Check(cudaStreamWaitEvent(other->device.stream(), forked_, 0), "beginning a step");
}

void ExpertDevices::Join() {
  for (const auto& other : others_) {
    other->device.Use();
    other->device.Check(cudaEventRecord(other->done, other->device.stream()), "marking a step");
    first_.Check(cudaStreamWaitEvent(first_.stream(), other->done, 0), "ending a step");
  }
  first_.Use();
}

void ExpertDevices::Begin(int layer, const float* normed, const std::int32_t* source,
                          const std::int32_t* offset, int m) {
  const int pairs = m * c_.top_k;
  const std::int64_t row = std::int64_t{c_.hidden_size} * 4;
  Together("sending rows to experts", [&](std::size_t rank, cudaStream_t stream) {
    const auto send = [&](const void* from, auto to, std::int64_t bytes) {
      void* const at = rank == 0 ? const_cast<void*>(from) : (*others_[rank - 1]).*to;
      return LoadNccl().Broadcast(at, at, std::size_t(bytes), kNcclUint8, 0, comms_[rank], stream);
    };
    int result = send(normed, &Other::normed, m * row);
    if (result == kNcclSuccess) result = send(source, &Other::source, std::int64_t{pairs} * 4);
    if (result == kNcclSuccess)
      result = send(offset, &Other::offset, std::int64_t{c_.experts + 1} * 4);
    return result;
  });
  for (const auto& other : others_) {
    Other& o = *other;
    const cudaStream_t stream = o.device.stream();
    o.device.Use();
    kc::GatherRows(o.normed, o.source, pairs, row, o.gathered, stream);
    o.device.Check(cudaMemsetAsync(o.out, 0, std::size_t(pairs * row), stream), "clearing rows");
    RunMlp(numerics_, o.weights.layer(layer).experts, o.gathered, o.offset + o.first_expert, pairs,
           o.room, o.out, stream);
  }
  first_.Use();
}

void ExpertDevices::End(float* out, int m) {
  const std::size_t count = std::size_t(m) * std::size_t(c_.top_k) * std::size_t(c_.hidden_size);
  Together("taking experts' rows back", [&](std::size_t rank, cudaStream_t stream) {
    float* const at = rank == 0 ? out : others_[rank - 1]->out;
    return LoadNccl().Reduce(at, at, count, kNcclUint32, kNcclSum, 0, comms_[rank], stream);
  });
}

}  // namespace temper::engine::cuda
