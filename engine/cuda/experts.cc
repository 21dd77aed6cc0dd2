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
  ~Other() {
    cudaStreamSynchronize(device.stream());
    cudaEventDestroy(done);
  }

  Device device;
  DeviceWeights weights;
  int first_expert;
  Arena arena;
  float *normed = nullptr, *gathered = nullptr, *out = nullptr;
  std::int32_t *source = nullptr, *offset = nullptr;
  MlpRoom room{};
  cudaEvent_t done = nullptr;
};

ExpertDevices::ExpertDevices(const Weights& weights, const Device& first, int count)
    : c_(weights.config()),
      numerics_(weights.numerics()),
      first_(first),
      name_(first.name() + "-" + std::to_string(first.number() + count - 1)) {
  if (c_.moe_layers() == 0 || c_.experts < count) {
    throw UserError("device: " + name_ + " spreads experts over " + std::to_string(count) +
                    " devices; this model has " +
                    std::to_string(c_.moe_layers() == 0 ? 0 : c_.experts) +
                    "; choose fewer devices");
  }
  const Nccl& nccl = LoadNccl();
  std::vector<int> numbers = {first.number()};
  for (int part = 1; part < count; ++part) {
    numbers.push_back(first.number() + part);
    others_.push_back(std::make_unique<Other>(weights, numbers.back(), part, count));
  }
  first_.Use();
  first_.Check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "making an event");
  comms_.resize(numbers.size());
  CheckNccl(nccl.CommInitAll(comms_.data(), count, numbers.data()), name_,
            "bringing them together");
}

ExpertDevices::~ExpertDevices() {
  cudaStreamSynchronize(first_.stream());
  others_.clear();
  for (NcclComm comm : comms_) LoadNccl().CommDestroy(comm);
  cudaEventDestroy(forked_);
}

bool ExpertDevices::Reserve(int rows) {
  if (rows <= rows_) return false;
  rows_ = rows;
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
  return true;
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
  const Nccl& nccl = LoadNccl();
  const int pairs = m * c_.top_k;
  const auto send = [&](const void* from, std::size_t bytes, const auto& to) {
    const auto each = [&](std::size_t rank, void* at, const Device& device) {
      CheckNccl(nccl.Broadcast(rank == 0 ? from : at, at, bytes, kNcclUint8, 0, comms_[rank],
                               device.stream()),
                name_, "sending rows to experts");
    };
    each(0, const_cast<void*>(from), first_);
    for (std::size_t i = 0; i < others_.size(); ++i)
      each(i + 1, to(*others_[i]), others_[i]->device);
  };
  CheckNccl(nccl.GroupStart(), name_, "sending rows to experts");
  send(normed, std::size_t(m) * std::size_t(c_.hidden_size) * 4,
       [](const Other& o) { return o.normed; });
  send(source, std::size_t(pairs) * 4, [](const Other& o) { return o.source; });
  send(offset, std::size_t(c_.experts + 1) * 4, [](const Other& o) { return o.offset; });
  CheckNccl(nccl.GroupEnd(), name_, "sending rows to experts");
  for (const auto& other : others_) {
    Other& o = *other;
    const cudaStream_t stream = o.device.stream();
    const std::int64_t row = std::int64_t{c_.hidden_size} * 4;
    o.device.Use();
    kc::GatherRows(o.normed, o.source, pairs, row, o.gathered, stream);
    o.device.Check(cudaMemsetAsync(o.out, 0, std::size_t(pairs * row), stream), "clearing rows");
    RunMlp(numerics_, o.weights.layer(layer).experts, o.gathered, o.offset + o.first_expert, pairs,
           o.room, o.out, stream);
  }
  first_.Use();
}

void ExpertDevices::End(float* out, int m) {
  const Nccl& nccl = LoadNccl();
  const std::size_t count = std::size_t(m) * std::size_t(c_.top_k) * std::size_t(c_.hidden_size);
  const char* const doing = "taking experts' rows back";
  CheckNccl(nccl.GroupStart(), name_, doing);
  CheckNccl(nccl.Reduce(out, out, count, kNcclUint32, kNcclSum, 0, comms_[0], first_.stream()),
            name_, doing);
  for (std::size_t i = 0; i < others_.size(); ++i) {
    const Other& o = *others_[i];
    CheckNccl(nccl.Reduce(o.out, o.out, count, kNcclUint32, kNcclSum, 0, comms_[i + 1],
                          o.device.stream()),
              name_, doing);
  }
  CheckNccl(nccl.GroupEnd(), name_, doing);
}

}  // namespace temper::engine::cuda
