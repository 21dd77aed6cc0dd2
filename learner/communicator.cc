#include "learner/communicator.h"

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef TEMPER_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "configs/error.h"
#include "engine/decoder.h"
#include "learner/core/stopwatch.h"
#include "learner/rank_store.h"
#include "learner/rank_watch.h"

namespace temper::learner {

namespace {

constexpr std::int64_t kBucket = 1 << 20;  // floats of one exchange with one rank
// Gloo's own deadline: never before ours, which does not count the time that a machine slept.
constexpr auto kForever = std::chrono::hours(24 * 365);
constexpr auto kSlice = std::chrono::milliseconds(1);
constexpr int kSlicesAPulse = 1000 / RankWatch::kPulsesASecond;

using Work = c10::intrusive_ptr<c10d::Work>;

/// The interface that the ranks of one machine share, the one that the user named, or that of the
/// machine's name.
std::shared_ptr<gloo::transport::Device> GlooDevice(const std::string& address) {
  using c10d::ProcessGroupGloo;
  if (const char* named = std::getenv("GLOO_SOCKET_IFNAME"))
    return ProcessGroupGloo::createDeviceForInterface(named);
  if (address == "localhost" || address.starts_with("127."))
    return ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
  return ProcessGroupGloo::createDefaultDevice();
}

c10::intrusive_ptr<c10d::Backend> MakeBackend(const RankPlace& place, const torch::Device& device,
                                              double timeout_s) {
  auto store = ConnectStore(place, timeout_s, /*serve=*/false);
#ifdef TEMPER_NCCL
  if (device.is_cuda()) {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = kForever;
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, place.rank, place.size, options);
  }
#endif
  if (!device.is_cpu())
    throw UserError("device: \"" + device.str() +
                    "\" needs LibTorch with CUDA and NCCL; scripts/cuda-build makes it");
  auto options = c10d::ProcessGroupGloo::Options::create(Milliseconds(timeout_s));
  options->devices.push_back(GlooDevice(place.address));
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.size, options);
  gloo->setTimeout(kForever);
  return gloo;
}

}  // namespace

std::string DeviceOf(const RankPlace& place, const std::string& device) {
  const int first = engine::DeviceNumber(device);
  return first < 0 ? device : "cuda:" + std::to_string(first + place.local_rank);
}

struct Communicator::Group {
  Group(const RankPlace& place_, const std::string& device_, double timeout_s_)
      : place(place_), device(device_), timeout_s(timeout_s_), watch(place_, timeout_s_) {
    try {
      backend = MakeBackend(place, device, timeout_s);
    } catch (const c10::Error& error) {
      Lost("meeting", FirstLine(error));
    } catch (const gloo::Exception& error) {
      Lost("meeting", FirstLine(error));
    }
  }

  [[noreturn]] void Lost(const std::string& what, const std::string& why) {
    backend.release();  // taking it down would wait for who is gone
    const std::string missing = watch.Missing(number);
    const std::string text = place.Name() + ", " + what + ": " + (missing.empty() ? why : missing) +
                             "; the run goes on from its last checkpoint with --resume";
    if (device.is_cpu()) throw MachineError(text);
    // NCCL's kernel waits on the device for who is gone, and each call that gives memory back waits
    // for the kernel: nothing may be taken down.
    std::fprintf(stderr, "temper-learner: %s\n", text.c_str());
    std::fflush(stderr);
    std::_Exit(3);
  }

  /// One exchange. `begin` starts it; others may come as late as the root lives where `of_root`.
  /// `begin` owns what it needs: it may be left behind.
  void Exchange(const std::string& what, bool of_root, const std::function<Work()>& begin) {
    if (!backend) throw std::logic_error("communicator: used after a rank was lost");
    Stopwatch lap;
    watch.Arrive(++number);
    try {
      const Work work = Begin(what, of_root, begin);
      Until([&] { return work->isCompleted(); }, what, of_root);
      if (const std::exception_ptr error = work->exception()) std::rethrow_exception(error);
      if (device.is_cuda()) work->synchronize();
    } catch (const MachineError&) {
      throw;
    } catch (const std::exception& error) {
      Lost(what, FirstLine(error));
    }
    seconds += lap.Lap();
  }

  /// The first of a kind on a thread of its own: NCCL connects the ranks there, and blocks for one
  /// that never comes.
  Work Begin(const std::string& what, bool of_root, const std::function<Work()>& begin) {
    if (!begun_.insert(what).second) return begin();
    const auto begun = std::make_shared<std::promise<Work>>();
    std::future<Work> work = begun->get_future();
    std::thread([begun, begin] {
      try {
        begun->set_value(begin());
      } catch (...) {
        begun->set_exception(std::current_exception());
      }
    }).detach();
    const auto ready = [&](auto time) { return work.wait_for(time) == std::future_status::ready; };
    if (!ready(kSlice)) Until([&] { return ready(kSlice * 0); }, what, of_root);
    return work.get();
  }

  void Until(const std::function<bool()>& done, const std::string& what, bool of_root) {
    for (int spin = 0; spin < 200 && !done(); ++spin)
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    const double patience = timeout_s * 1000;
    for (std::int64_t slices = 0; !done(); ++slices) {
      std::this_thread::sleep_for(kSlice);
      if (!of_root && double(slices) > patience)
        Lost(what, "no answer within " + std::to_string(int(timeout_s)) + " s");
      if (slices % kSlicesAPulse != 0) continue;
      if (const std::string silent = watch.Silent(timeout_s); !silent.empty()) Lost(what, silent);
    }
  }

  torch::Tensor There(const torch::Tensor& host) const {
    return device.is_cpu() ? host : host.to(device);
  }

  /// Everyone's `mine`, of one length, one rank behind the other.
  torch::Tensor All(const std::string& what, const torch::Tensor& mine) {
    torch::Tensor in = There(mine);
    torch::Tensor out = torch::empty({place.size * mine.numel()}, in.options());
    Exchange(what, false, [b = backend, out, in]() mutable { return b->_allgather_base(out, in); });
    return out.cpu();
  }

  void Broadcast(torch::Tensor* values) {
    const char* what = place.rank == 0 ? "telling the others" : "waiting for rank 0";
    std::vector<torch::Tensor> list{There(*values)};
    Exchange(what, true, [b = backend, list]() mutable { return b->broadcast(list, {}); });
    *values = list[0].cpu();
  }

  const RankPlace place;
  const torch::Device device;
  const double timeout_s;
  RankWatch watch;
  c10::intrusive_ptr<c10d::Backend> backend;
  std::int64_t number = 0;  // of the exchange under way
  double seconds = 0;

 private:
  std::set<std::string> begun_;  // kinds of exchange
};

Communicator::Communicator() = default;

Communicator::Communicator(const RankPlace& place, const std::string& device, double timeout_s)
    : place_(place), device_(DeviceOf(place, device)) {
  engine::CheckDevice(device_);  // LibTorch would say less of one that isn't there
  if (place.size > 1) group_ = std::make_unique<Group>(place, device_, timeout_s);
}

// A group whose run ended early has ranks that wait in it: they learn it from this one's silence.
Communicator::~Communicator() {
  if (group_) group_->backend.release();
}

void Communicator::FromRoot(std::string* bytes) {
  if (!group_) return;
  torch::Tensor size = torch::tensor({std::int64_t(bytes->size())});
  group_->Broadcast(&size);
  bytes->resize(std::size_t(size.item<std::int64_t>()));
  if (bytes->empty()) return;
  torch::Tensor values =
      torch::from_blob(bytes->data(), {std::int64_t(bytes->size())}, torch::kUInt8);
  group_->Broadcast(&values);
  if (values.data_ptr() != bytes->data())
    std::memcpy(bytes->data(), values.data_ptr(), bytes->size());
}

void Communicator::FollowRoot() {
  std::string nothing;
  FromRoot(&nothing);
}

std::vector<std::string> Communicator::Gather(const std::string& mine) {
  if (!group_) return {mine};
  const torch::Tensor sizes = group_->All("gathering", torch::tensor({std::int64_t(mine.size())}));
  const std::int64_t longest = std::max<std::int64_t>(1, sizes.max().item<std::int64_t>());
  torch::Tensor padded = torch::zeros({longest}, torch::kUInt8);
  std::memcpy(padded.data_ptr(), mine.data(), mine.size());
  const torch::Tensor all = group_->All("gathering", padded);
  std::vector<std::string> texts;
  for (int r = 0; r < size(); ++r) {
    const char* from = static_cast<const char*>(all.data_ptr()) + r * longest;
    texts.emplace_back(from, std::size_t(sizes[r].item<std::int64_t>()));
  }
  return texts;
}

void Communicator::Sum(std::vector<double>* values) {
  if (!group_) return;
  const torch::Tensor all =
      group_->All("adding up", torch::tensor(*values, torch::kFloat64)).reshape({size(), -1});
  for (std::size_t i = 0; i < values->size(); ++i) {
    double sum = 0;
    for (int r = 0; r < size(); ++r) sum += all[r][std::int64_t(i)].item<double>();
    (*values)[i] = sum;
  }
}

namespace {

/// Copies count floats of every rank's shard, `at` floats behind its begin, to or from one buffer
/// that has them one rank behind the other. What lies past a shard's end is zero.
void Pack(const float* values, std::int64_t size, int ranks, std::int64_t at, std::int64_t count,
          float* packed) {
  for (int r = 0; r < ranks; ++r) {
    const Shard shard{r, ranks};
    const std::int64_t from = std::min(shard.begin(size) + at, shard.end(size)),
                       n = std::min(count, shard.end(size) - from);
    std::copy_n(values + from, n, packed + r * count);
    std::fill(packed + r * count + n, packed + (r + 1) * count, 0.0f);
  }
}

void Unpack(const float* packed, std::int64_t size, int ranks, std::int64_t at, std::int64_t count,
            float* values) {
  for (int r = 0; r < ranks; ++r) {
    const Shard shard{r, ranks};
    const std::int64_t from = std::min(shard.begin(size) + at, shard.end(size));
    std::copy_n(packed + r * count, std::min(count, shard.end(size) - from), values + from);
  }
}

/// Calls use(at, count) for each bucket of a shard.
template <class Use>
void ForBuckets(const Shard& shard, std::int64_t size, Use use) {
  const std::int64_t width = shard.width(size);
  for (std::int64_t at = 0; at < width; at += kBucket) use(at, std::min(kBucket, width - at));
}

}  // namespace

void Communicator::ReduceScatter(float* values, std::int64_t size) {
  if (!group_) return;
  ForBuckets(shard(), size, [&](std::int64_t at, std::int64_t count) {
    // Every rank sends every other its part of that one's shard, which alone adds up: in rank
    // order.
    torch::Tensor host = torch::empty({place_.size * count});
    Pack(values, size, place_.size, at, count, host.data_ptr<float>());
    torch::Tensor in = group_->There(host), out = torch::empty_like(in);
    group_->Exchange("adding gradients", false, [b = group_->backend, out, in]() mutable {
      std::vector<std::int64_t> even;
      return b->alltoall_base(out, in, even, even);
    });
    host = out.cpu();
    const float* parts = host.data_ptr<float>();
    float* sum = values + std::min(size, shard().begin(size) + at);
    const std::int64_t n = std::min(count, values + shard().end(size) - sum);
    for (std::int64_t i = 0; i < n; ++i) {
      float total = parts[i];
      for (int r = 1; r < place_.size; ++r) total += parts[r * count + i];
      sum[i] = total;
    }
  });
}

void Communicator::AllGather(float* values, std::int64_t size) {
  if (!group_) return;
  const Shard own = shard();
  ForBuckets(own, size, [&](std::int64_t at, std::int64_t count) {
    torch::Tensor mine = torch::zeros({count});
    const std::int64_t from = std::min(own.begin(size) + at, own.end(size));
    std::copy_n(values + from, std::min(count, own.end(size) - from), mine.data_ptr<float>());
    const torch::Tensor all = group_->All("sharing weights", mine);
    Unpack(all.data_ptr<float>(), size, place_.size, at, count, values);
  });
}

void Communicator::ToRoot(const float* mine, std::int64_t size, float* whole) {
  const Shard own = shard();
  if (!group_) {
    std::copy_n(mine, size, whole);
    return;
  }
  ForBuckets(own, size, [&](std::int64_t at, std::int64_t count) {
    torch::Tensor part = torch::zeros({count});
    const std::int64_t length = own.end(size) - own.begin(size);
    std::copy_n(mine + std::min(at, length), std::clamp<std::int64_t>(length - at, 0, count),
                part.data_ptr<float>());
    std::vector<torch::Tensor> in{group_->There(part)};
    std::vector<std::vector<torch::Tensor>> out;
    if (root()) {
      out.emplace_back();
      for (int r = 0; r < place_.size; ++r) out[0].push_back(torch::empty_like(in[0]));
    }
    group_->Exchange("gathering a checkpoint", false,
                     [b = group_->backend, out, in]() mutable { return b->gather(out, in, {}); });
    if (!root()) return;
    const torch::Tensor all = torch::cat(out[0]).cpu();
    Unpack(all.data_ptr<float>(), size, place_.size, at, count, whole);
  });
}

void Communicator::MustAgree(const std::string& what, const std::string& mine) {
  if (!group_) return;
  const std::vector<std::string> all = Gather(mine);
  for (int r = 1; r < size(); ++r) {
    if (all[std::size_t(r)] == all[0]) continue;
    throw MachineError(what + " of rank " + std::to_string(r) + " is not that of rank 0 (" +
                       all[std::size_t(r)] + ", not " + all[0] +
                       "); resume from the last checkpoint, and look for differing programs or "
                       "processors");
  }
}

void Communicator::Finish() {
  if (!group_) return;
  FollowRoot();
  std::vector<torch::Tensor> in{group_->There(torch::zeros({1}))};
  std::vector<std::vector<torch::Tensor>> out;
  if (root()) out.emplace_back(std::size_t(size()), torch::empty_like(in[0]));
  group_->Exchange("ending", false,
                   [b = group_->backend, out, in]() mutable { return b->gather(out, in, {}); });
}

double Communicator::TakeSeconds() { return group_ ? std::exchange(group_->seconds, 0) : 0; }

}  // namespace temper::learner
