// Log-probs of targets over the whole vocabulary, a chunk of rows at a time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/sampling.h"
#include "learner/core/gradients.h"
#include "learner/device.h"
#include "learner/ops.h"
#include "learner/products.h"

namespace temper::learner {

namespace {

constexpr std::int64_t kChunkFloats = std::int64_t{1} << 22;  // logits of a chunk: 16 MiB
constexpr std::int64_t kKeptFloats = std::int64_t{1} << 27;   // logits kept for Backward: 512 MiB

std::int64_t ChunkRows(std::int64_t vocab) {
  return std::max<std::int64_t>(64, kChunkFloats / vocab);
}

}  // namespace

Tensors HeadOp::DeviceForward(const Tensors& in) {
  const Device& device = *context_.device;
  const std::int64_t rows = targets_.count(), step = ChunkRows(head_->n);
  torch::Tensor logp = torch::empty({rows}, in[0].options()), entropy = torch::zeros_like(logp);
  lse_ = torch::empty({rows});
  correct_ = 0;
  for (std::int64_t r = 0; r < rows; r += step) {
    const std::int64_t m = std::min(step, rows - r);
    const Targets part = Part(r, m).targets_;
    const torch::Tensor logits =
        device.Linear(*head_, in[0].index_select(0, IndexFor(in[0], part.row)));
    const Device::LogProbs found = device.LogSoftmax(logits, part.target, temperature_);
    torch::Tensor own = found.logp;
    if (forms_.kept || forms_.soft) {
      const torch::Tensor read = logits.cpu();
      lse_.narrow(0, r, m).copy_(found.lse);
      own = own.cpu();
      Reform(read.data_ptr<float>(), r, m, own.data_ptr<float>());
    }
    logp.narrow(0, r, m).copy_(own);
    if (want_entropy_) entropy.narrow(0, r, m).copy_(found.entropy);
    correct_ += logits.argmax(1).eq(IndexFor(logits, part.target)).sum().item<std::int64_t>();
  }
  return {logp, entropy};
}

HeadOp HeadOp::Part(std::int64_t first, std::int64_t rows) const {
  const auto cut = [&](const auto& all) {
    return std::decay_t<decltype(all)>(all.begin() + first, all.begin() + first + rows);
  };
  const auto cut_form = [&](const auto& all) {
    using Form = std::decay_t<decltype(*all)>;
    return all ? std::make_shared<const Form>(cut(*all)) : nullptr;
  };
  return HeadOp(context_, head_, {cut(targets_.row), cut(targets_.target)}, temperature_,
                want_entropy_, {cut_form(forms_.kept), cut_form(forms_.soft)});
}

Tensors HeadOp::DeviceBackward(const Tensors& in, const Tensors& grad,
                               const std::vector<bool>& needs) {
  const std::int64_t rows = targets_.count(), step = ChunkRows(head_->n);
  Tensors sum(in.size());
  for (std::int64_t r = 0; r < rows; r += step) {
    const std::int64_t m = std::min(step, rows - r);
    Tensors own;
    for (const torch::Tensor& g : grad)
      own.push_back(g.defined() ? g.narrow(0, r, m) : torch::Tensor());
    HeadOp part = Part(r, m);
    const Tensors found = part.Op::Backward(in, own, needs);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      if (found[i].defined()) sum[i] = sum[i].defined() ? sum[i].add_(found[i]) : found[i];
    }
  }
  return sum;
}

Tensors HeadOp::Forward(const Tensors& in) {
  if (context_.device) return DeviceForward(in);
  const std::int64_t rows = targets_.count(), h = in[0].size(1);
  const kernels::LinearWeight head = head_->view();
  rows_ = torch::empty({rows, h});
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(rows_.data_ptr<float>() + r * h, in[0].data_ptr<float>() + targets_.row[r] * h,
                h * sizeof(float));
  }
  torch::Tensor logp = torch::empty({rows});
  lse_ = torch::empty({rows});
  entropy_ = torch::zeros({rows});
  const bool keep = !context_.recompute && rows * head.n <= kKeptFloats;
  const std::int64_t step = ChunkRows(head.n);
  torch::Tensor chunk;
  std::vector<char> hit(rows);
  for (std::int64_t r = 0; r < rows; r += step) {
    const int m = int(std::min(step, rows - r));
    if (keep || !chunk.defined()) chunk = torch::empty({std::min(step, rows), head.n});
    float* logits = chunk.data_ptr<float>();
    kernels::Linear(head, rows_.data_ptr<float>() + r * h, h, m, logits, head.n, *context_.pool);
    kernels::LogSumExp(logits, head.n, m, head.n, temperature_, lse_.data_ptr<float>() + r,
                       *context_.pool);
    kernels::TokenLogProbs(logits, head.n, m, head.n, temperature_, targets_.target.data() + r,
                           logp.data_ptr<float>() + r, *context_.pool);
    if (forms_.kept || forms_.soft) Reform(logits, r, m, logp.data_ptr<float>() + r);
    if (want_entropy_) {
      kernels::Entropy(logits, head.n, m, head.n, temperature_, entropy_.data_ptr<float>() + r,
                       *context_.pool);
    }
    ForRows(*context_.pool, m, 256, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float* row = logits + i * head.n;
        hit[r + i] = IsFirstLargest(row, head.n, targets_.target[r + i]);
      }
    });
    if (keep) logits_.push_back(chunk);
  }
  correct_ = std::count(hit.begin(), hit.end(), 1);
  return {logp, entropy_.clone()};
}

Tensors HeadOp::Plain(const Tensors& in) {
  const torch::Tensor row = IndexFor(in[0], targets_.row);
  const torch::Tensor target = IndexFor(in[0], targets_.target);
  const torch::Tensor logits = torch::mm(in[0].index_select(0, row), in[1].t());
  const torch::Tensor logp = torch::log_softmax(logits / temperature_, 1);
  correct_ = logits.argmax(1).eq(target).sum().item<std::int64_t>();
  const torch::Tensor entropy = -(logp.exp() * logp).sum(1);
  if (forms_.kept) {
    torch::Tensor out = torch::ones_like(logits, torch::kBool);
    for (std::int64_t r = 0; r < out.size(0); ++r) {
      out[r].index_fill_(0, IndexFor(out, (*forms_.kept)[r]), 0);
    }
    const torch::Tensor of_kept = torch::log_softmax(
        (logits / temperature_).masked_fill(out, -std::numeric_limits<float>::infinity()), 1);
    return {of_kept.gather(1, target.unsqueeze(1)).squeeze(1), entropy};
  }
  if (!forms_.soft) return {logp.gather(1, target.unsqueeze(1)).squeeze(1), entropy};
  torch::Tensor weight = torch::zeros_like(logp);
  for (std::int64_t r = 0; r < weight.size(0); ++r) {
    const WeightedIds& soft = (*forms_.soft)[r];
    if (soft.ids.empty()) weight[r][targets_.target[r]] = 1;
    for (std::size_t j = 0; j < soft.ids.size(); ++j) weight[r][soft.ids[j]] = soft.weights[j];
  }
  return {(logp * weight).sum(1), entropy};
}

void HeadOp::Reform(const float* logits, std::int64_t first, std::int64_t rows, float* logp) const {
  const int vocab = head_->n;
  const float* lse = lse_.data_ptr<float>() + first;
  ForRows(*context_.pool, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* row = logits + i * vocab;
      if (forms_.kept)
        logp[i] -= kernels::LogKeptMass(row, temperature_, lse[i], (*forms_.kept)[first + i]);
      if (!forms_.soft || (*forms_.soft)[first + i].ids.empty()) continue;
      const WeightedIds& soft = (*forms_.soft)[first + i];
      double sum = 0;
      for (std::size_t j = 0; j < soft.ids.size(); ++j)
        sum += double(soft.weights[j]) * (double(row[soft.ids[j]]) / temperature_ - lse[i]);
      logp[i] = float(sum);
    }
  });
}

void HeadOp::ChunkGradient(torch::Tensor& logits, std::int64_t first, const torch::Tensor& g,
                           const torch::Tensor& ge) {
  const std::int64_t m = logits.size(0), vocab = logits.size(1);
  float* d = logits.data_ptr<float>();
  const float* lse = lse_.data_ptr<float>() + first;
  const float* gradient = g.data_ptr<float>() + first;
  // Of the kept ids: g / T (delta - p / mass), nothing for the others.
  std::vector<std::vector<float>> share;
  torch::Tensor scaled;  // what is left for the whole vocabulary
  if (forms_.kept) {
    share.resize(m);
    for (std::int64_t i = 0; i < m; ++i) {
      double mass = 0;
      for (std::int32_t id : (*forms_.kept)[first + i]) {
        share[i].push_back(std::exp(d[i * vocab + id] / temperature_ - lse[i]));
        mass += share[i].back();
      }
      for (float& p : share[i]) p = float(p / mass);
    }
    scaled = torch::zeros({m});
  } else if (forms_.soft) {  // g / T (sum(w delta) - sum(w) p)
    scaled = g.narrow(0, first, m).clone();
    for (std::int64_t i = 0; i < m; ++i) {
      const std::vector<float>& w = (*forms_.soft)[first + i].weights;
      if (!w.empty()) scaled.data_ptr<float>()[i] *= std::accumulate(w.begin(), w.end(), 0.0f);
    }
  }
  const float* whole = scaled.defined() ? scaled.data_ptr<float>() : gradient;
  LogProbGradient(d, m, int(vocab), temperature_, targets_.target.data() + first, lse, whole,
                  ge.defined() ? ge.data_ptr<float>() + first : nullptr,
                  entropy_.data_ptr<float>() + first, *context_.pool);
  for (std::int64_t i = 0; i < std::int64_t(share.size()); ++i) {
    const std::vector<std::int32_t>& kept = (*forms_.kept)[first + i];
    const float scale = gradient[i] / temperature_;
    for (std::size_t j = 0; j < kept.size(); ++j) d[i * vocab + kept[j]] -= scale * share[i][j];
    d[i * vocab + targets_.target[first + i]] += scale;
  }
  for (std::int64_t i = 0; forms_.soft && i < m; ++i) {
    const WeightedIds& soft = (*forms_.soft)[first + i];
    if (soft.ids.empty()) continue;
    d[i * vocab + targets_.target[first + i]] -= whole[i] / temperature_;
    for (std::size_t j = 0; j < soft.ids.size(); ++j)
      d[i * vocab + soft.ids[j]] += gradient[i] * soft.weights[j] / temperature_;
  }
}

Tensors HeadOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  if (context_.device) return DeviceBackward(in, grad, needs);
  const std::int64_t rows = targets_.count(), h = in[0].size(1), vocab = in[1].size(0);
  const std::int64_t step = ChunkRows(vocab);
  kernels::ThreadPool& pool = *context_.pool;
  const torch::Tensor g = grad[0].defined() ? grad[0].contiguous() : torch::zeros({rows});
  const torch::Tensor ge = grad[1].defined() ? grad[1].contiguous() : torch::Tensor();
  torch::Tensor d_rows = torch::empty({rows, h});
  torch::Tensor d_head;
  for (std::int64_t r = 0; r < rows; r += step) {
    const std::int64_t m = std::min(step, rows - r);
    torch::Tensor d;  // becomes d loss / d logits in place
    if (logits_.empty()) {
      d = torch::empty({m, vocab});
      kernels::Linear(head_->view(), rows_.data_ptr<float>() + r * h, h, int(m),
                      d.data_ptr<float>(), vocab, pool);
    } else {
      d = logits_[r / step].narrow(0, 0, m);
    }
    ChunkGradient(d, r, g, ge);
    if (needs[0])
      Multiply(Form::kRows, ProductOf(Form::kRows, d, in[1], d_rows.narrow(0, r, m)), pool);
    if (!needs[1]) continue;
    const torch::Tensor part = WeightGradient(d, rows_.narrow(0, r, m), true, pool);
    d_head = d_head.defined() ? d_head.add_(part) : part;
  }
  logits_.clear();  // they were overwritten: one backward a forward
  torch::Tensor d_hidden;
  if (needs[0]) {
    d_hidden = torch::zeros_like(in[0]);
    // A row may have several targets: each thread adds some columns, in the targets' order.
    ForRows(pool, h, 128, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = 0; r < rows; ++r) {
        float* to = d_hidden.data_ptr<float>() + targets_.row[r] * h;
        const float* from = d_rows.data_ptr<float>() + r * h;
        for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
      }
    });
  }
  return {d_hidden, d_head};
}

}  // namespace temper::learner
