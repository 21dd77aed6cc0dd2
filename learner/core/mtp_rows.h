#pragma once
// What each multi-token-prediction layer reads: the next tokens of the rows before it.
#include "learner/core/pack.h"

namespace temper::learner {

/// The rows of one MTP layer. Row t of a chain holds the token that row t + 1 of the layer before
/// holds, and reads that layer's hidden state of row t.
struct MtpRows {
  Pack pack;                         // sequences as in the pack before
  std::vector<std::int64_t> hidden;  // [T'] row of the pack before
};

/// Of the layer after `before`: the main model's pack (`main`) or that of an MTP layer. A whole
/// sequence's last row of the main pack leads nowhere and has no successor's row; a trunk's or a
/// branch's may.
MtpRows NextMtpRows(const Pack& before, bool main);

/// Targets of MTP layer `depth` (from 0) on its pack, of those of the main pack: a row that
/// predicts the token at position p there stands at p - 2 - depth here; those before position 0 are
/// left out.
Targets MtpTargets(const Pack& main, const Targets& targets, const Pack& pack, int depth);

}  // namespace temper::learner
