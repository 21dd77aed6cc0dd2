#include "learner/core/mtp_rows.h"

namespace temper::learner {

MtpRows NextMtpRows(const Pack& before, bool main) {
  MtpRows rows;
  for (int s = 0; s < before.sequences(); ++s) {
    const int first = before.start[s], from = before.trunk[s], length = before.length(s);
    const bool leads = !main || from >= 0 || before.BranchesEnd(s) > s + 1;
    // A branch behind a trunk loses no row: its first one reads the trunk's last hidden state.
    const int skipped = before.before(s) > 0 ? 0 : 1;
    const int count = std::max(0, length - skipped - (leads ? 0 : 1));
    const std::span<const std::int32_t> ids(before.ids.data() + first + skipped,
                                            std::size_t(count));
    if (from < 0) {
      rows.pack.Add(ids);
    } else {
      rows.pack.AddBranch(from, ids);
    }
    for (int t = 0; t < count; ++t) {
      const bool of_trunk = skipped == 0 && t == 0;
      rows.hidden.push_back(of_trunk ? before.start[from + 1] - 1 : first + t - 1 + skipped);
    }
  }
  return rows;
}

Targets MtpTargets(const Pack& main, const Targets& targets, const Pack& pack, int depth) {
  Targets out;
  for (int i = 0; i < targets.count(); ++i) {
    const int position = main.position[targets.row[i]] - 1 - depth;
    if (position < 0) continue;
    out.row.push_back(pack.RowAt(main.SequenceOf(targets.row[i]), position));
    out.target.push_back(targets.target[i]);
  }
  return out;
}

}  // namespace temper::learner
