// Scores are kept with keys as rows and queries as columns: softmax then runs down sixteen columns
// at once, and the same numbers are an input of dK and dV and, a panel at a time, a packed weight
// of dQ.
#include "learner/core/attention_gradient.h"

#include <algorithm>
#include <cstring>
#include <utility>

// clang-format off
#include "kernels/lanes_avx2.h"
// clang-format on
#include "kernels/linear.h"
#include "kernels/parts.h"
#include "kernels/variant.h"
#include "learner/core/gemm.h"

namespace temper::learner {

namespace {

using kernels::kPanel;

constexpr int kQueries = 64;  // of a block: a multiple of kPanel

constexpr std::int64_t Padded(std::int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

/// out [m, n] = x [m, k] times packed [n outputs][k inputs], on this thread.
void Linear(const float* packed, int n, int k, const float* x, std::int64_t ldx, int m, float* out,
            std::int64_t ldo) {
  kernels::ActiveVariant().linear(
      {{packed, n, k}, 0, (n + kPanel - 1) / kPanel, x, ldx, m, out, ldo});
}

/// The longest chain of a sequence without a trunk: its own tokens and those of a branch.
int LongestChain(const Pack& pack, int sequence) {
  int longest = 0;
  for (int s = sequence + 1; s < pack.BranchesEnd(sequence); ++s)
    longest = std::max(longest, pack.length(s));
  return pack.length(sequence) + longest;
}

/// One head of one sequence and its branches, one branch after the other.
class HeadGradient {
 public:
  HeadGradient(const AttentionGradientArgs& args, int sequence, int head, kernels::Scratch& scratch)
      : a_(args),
        sequence_(sequence),
        first_(args.pack->start[sequence]),
        trunk_(args.pack->length(sequence)),
        head_(head),
        dim_(args.nope + args.rope) {
    const std::int64_t n = Padded(LongestChain(*args.pack, sequence)), block = n * kQueries;
    const std::int64_t wide = Padded(std::max(dim_, a_.value));
    float* next = scratch.Reserve(n * (3 * Padded(dim_) + wide) + kPanel * Padded(dim_) +
                                  3 * block + 4 * kQueries * wide + kPanel * wide);
    const auto take = [&next](std::int64_t floats) { return std::exchange(next, next + floats); };
    ldt_ = n + kPanel;
    key_ = take(n * Padded(dim_));
    key_columns_ = take(ldt_ * Padded(dim_));
    d_key_ = take(n * Padded(dim_));
    part_ = take(n * wide);
    p_ = take(block);
    d_ = take(block);
    panels_ = take(block);
    q_panels_ = take(kQueries * wide);
    g_panels_ = take(kQueries * wide);
    q_rows_ = take(kQueries * wide);
    g_rows_ = take(kQueries * wide);
    d_query_ = take(kPanel * wide);
  }

  void Run() {
    Segment(0, trunk_);
    for (int s = sequence_ + 1; s < a_.pack->BranchesEnd(sequence_); ++s) {
      branch_ = a_.pack->start[s];
      Segment(trunk_, trunk_ + a_.pack->length(s));
      PutKeys(trunk_, trunk_ + a_.pack->length(s));
    }
    PutKeys(0, trunk_);  // every branch has added to them
  }

 private:
  /// The token at position j of the chain.
  std::int64_t Row(int j) const { return j < trunk_ ? first_ + j : branch_ + (j - trunk_); }
  std::int64_t LdKv() const { return std::int64_t{a_.heads} * (a_.nope + a_.value); }
  std::int64_t AtKv(int j) const { return Row(j) * LdKv() + head_ * (a_.nope + a_.value); }
  const float* Kv(int j) const { return a_.kv + AtKv(j); }
  float* DKv(int j) const { return a_.d_kv + AtKv(j); }

  /// Keys and queries at positions [from, to): all of the trunk or all of a branch.
  void Segment(int from, int to) {
    for (int j = from; j < to; ++j) {
      float* key = key_ + std::int64_t{j} * dim_;
      std::memcpy(key, Kv(j), a_.nope * sizeof(float));
      std::memcpy(key + a_.nope, a_.shared + Row(j) * a_.ld_shared, a_.rope * sizeof(float));
    }
    Transpose(key_ + std::int64_t{from} * dim_, dim_, to - from, dim_, key_columns_ + from, ldt_);
    for (int begin = from; begin < to; begin += kQueries)
      Queries(begin, std::min(kQueries, to - begin));
  }

  void PutKeys(int from, int to) const {
    for (int j = from; j < to; ++j) {
      const float* d = d_key_ + std::int64_t{j} * dim_;
      std::memcpy(DKv(j), d, a_.nope * sizeof(float));
      std::memcpy(a_.d_shared + (Row(j) * a_.heads + head_) * a_.rope, d + a_.nope,
                  a_.rope * sizeof(float));
    }
  }

  /// Sixteen rows of g against the values of keys [0, seen).
  void ValueProducts(int panel, int seen) {
    const auto part = [&](int from, int to) {
      if (from >= to) return;
      Linear(g_panels_ + panel * kPanel * a_.value, kPanel, a_.value, Kv(from) + a_.nope, LdKv(),
             to - from, d_ + std::int64_t{from} * kQueries + panel * kPanel, kQueries);
    };
    part(0, std::min(seen, trunk_));
    part(trunk_, seen);
  }

  /// Queries [begin, begin + count) against keys [0, begin + count).
  void Queries(int begin, int count) {
    const int keys = begin + count, heads = a_.heads;
    const std::int64_t ldq = std::int64_t{heads} * dim_, ldg = std::int64_t{heads} * a_.value;
    const float* q = a_.q + Row(begin) * ldq + head_ * dim_;
    const float* g = a_.g + Row(begin) * ldg + head_ * a_.value;
    float* d_q = a_.d_q + Row(begin) * ldq + head_ * dim_;
    const int panels = (count + kPanel - 1) / kPanel;
    PackPanels(q, ldq, count, dim_, 0, panels, q_panels_);
    PackPanels(g, ldg, count, a_.value, 0, panels, g_panels_);
    PackRows(q, ldq, count, dim_, 0, count, q_rows_);
    PackRows(g, ldg, count, a_.value, 0, count, g_rows_);
    for (int panel = 0; panel < panels; ++panel) {
      const int seen = std::min(keys, begin + (panel + 1) * kPanel);
      Linear(q_panels_ + panel * kPanel * dim_, kPanel, dim_, key_, dim_, seen, p_ + panel * kPanel,
             kQueries);
      ValueProducts(panel, seen);
      Softmax(panel, begin + panel * kPanel, seen, keys);
      Linear(panels_, kPanel, seen, key_columns_, ldt_, dim_, d_query_, kPanel);
      const int rows = std::min(kPanel, count - panel * kPanel);
      Transpose(d_query_, kPanel, dim_, rows, d_q + panel * kPanel * ldq, ldq);
    }
    // The keys of this block meet their first queries here.
    Linear(g_rows_, a_.value, count, p_, kQueries, keys, part_, a_.value);
    for (int j = 0; j < keys; ++j)
      Put(part_ + std::int64_t{j} * a_.value, a_.value, j < begin, DKv(j) + a_.nope);
    Linear(q_rows_, dim_, count, d_, kQueries, keys, part_, dim_);
    Put(part_, std::int64_t{begin} * dim_, true, d_key_);
    Put(part_ + std::int64_t{begin} * dim_, std::int64_t{count} * dim_, false,
        d_key_ + std::int64_t{begin} * dim_);
  }

  static void Put(const float* from, std::int64_t n, bool add, float* to) {
    if (add) {
      for (std::int64_t i = 0; i < n; ++i) to[i] += from[i];
    } else {
      std::memcpy(to, from, n * sizeof(float));
    }
  }

  /// Sixteen queries from `query` on and the keys [0, seen) that one of them sees; zeros up to
  /// `keys`. In: scores in p_, dP in d_. Out: P in p_, dS in d_ and, as a packed weight, in
  /// panels_.
  void Softmax(int panel, int query, int seen, int keys) {
    using namespace kernels;
    float* p = p_ + panel * kPanel;
    float* d = d_ + panel * kPanel;
    const Lanes scale = Broadcast(a_.scale), lowest = Broadcast(-__builtin_inff());
    // Query `query + lane` does not see key j where lane < j - query.
    const int whole = std::min(seen, query + 1);
    Lanes most = lowest;
    for (int j = 0; j < whole; ++j) most = Max(Load(p + j * kQueries), most);
    for (int j = whole; j < seen; ++j)
      most = Max(Select(FirstLanes(j - query), lowest, Load(p + j * kQueries)), most);
    Lanes sum = Zero(), inner = Zero();
    const auto numerator = [&](int j, auto mask) {
      const Lanes e = mask(Exp(Mul(Sub(Load(p + j * kQueries), most), scale)));
      Store(p + j * kQueries, e);
      sum = Add(sum, e);
      inner = Fma(e, Load(d + j * kQueries), inner);
    };
    for (int j = 0; j < whole; ++j) numerator(j, [](Lanes e) { return e; });
    for (int j = whole; j < seen; ++j)
      numerator(j, [&](Lanes e) { return Select(FirstLanes(j - query), Zero(), e); });
    const Lanes inverse = Div(Broadcast(1.0f), sum);
    inner = Mul(inner, inverse);
    for (int j = 0; j < seen; ++j) {
      const Lanes probability = Mul(Load(p + j * kQueries), inverse);
      const Lanes ds = Mul(Mul(probability, Sub(Load(d + j * kQueries), inner)), scale);
      Store(p + j * kQueries, probability);
      Store(d + j * kQueries, ds);
      Store(panels_ + j * kPanel, ds);
    }
    for (int j = seen; j < keys; ++j) {
      Store(p + j * kQueries, Zero());
      Store(d + j * kQueries, Zero());
    }
  }

  const AttentionGradientArgs& a_;
  const int sequence_;
  const std::int64_t first_;
  const int trunk_, head_, dim_;
  std::int64_t branch_ = 0;  // first token of the branch at work
  std::int64_t ldt_;
  float *key_, *key_columns_, *d_key_;  // [n][dim], [dim][ldt], [n][dim]
  float* part_;                         // [n][dim or value] of one block
  float *p_, *d_;                       // [n][kQueries]
  float* panels_;                       // [n][16]
  float *q_panels_, *g_panels_, *q_rows_, *g_rows_;
  float* d_query_;  // [dim][16]
};

struct Task {
  int sequence, head;
};

}  // namespace

void AttentionGradient(const AttentionGradientArgs& args, kernels::ThreadPool& pool) {
  thread_local kernels::TaskList<Task> tasks;
  tasks.Clear();
  const Pack& pack = *args.pack;
  for (int first = 0, end = 0; first < pack.sequences(); first = end) {
    end = pack.BranchesEnd(first);
    std::int64_t pairs = 0;
    for (int s = first; s < end; ++s) {
      const std::int64_t all = pack.before(s) + pack.length(s);
      pairs += pack.length(s) * (pack.before(s) + Padded(all)) / 2;
    }
    const std::int64_t fma = 5 * pairs * (args.nope + args.rope + args.value);
    for (int h = 0; h < args.heads && pairs > 0; ++h) tasks.Add({first, h}, kernels::FmaTime(fma));
  }
  tasks.Run(pool, [&](const Task& task) {
    thread_local kernels::Scratch scratch;
    HeadGradient(args, task.sequence, task.head, scratch).Run();
  });
}

}  // namespace temper::learner
