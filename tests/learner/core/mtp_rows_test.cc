#include "learner/core/mtp_rows.h"

#include <gtest/gtest.h>

namespace temper::learner {
namespace {

using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

TEST(MtpRowsTest, AWholeSequenceReadsEachRowWithTheTokenAfterIt) {
  Pack pack;
  pack.Add(Ids{10, 11, 12, 13, 14});
  pack.Add(Ids{20, 21});  // nothing after the next token
  pack.Add(Ids{});
  const MtpRows first = NextMtpRows(pack, true), second = NextMtpRows(first.pack, false);
  EXPECT_EQ(first.pack.ids, (Ids{11, 12, 13}));
  EXPECT_EQ(first.pack.position, (Ids{0, 1, 2}));
  EXPECT_EQ(first.hidden, (Rows{0, 1, 2}));
  EXPECT_EQ(first.pack.sequences(), 3);
  EXPECT_EQ(second.pack.ids, (Ids{12, 13}));
  EXPECT_EQ(second.hidden, (Rows{0, 1}));
}

TEST(MtpRowsTest, ABranchBeginsWithTheHiddenStateOfItsTrunksEnd) {
  Pack pack;
  const int trunk = pack.Add(Ids{1, 2, 3});
  pack.AddBranch(trunk, Ids{4, 5});
  pack.AddBranch(trunk, Ids{6});
  pack.AddBranch(trunk, Ids{});
  const MtpRows first = NextMtpRows(pack, true), second = NextMtpRows(first.pack, false),
                third = NextMtpRows(second.pack, false);
  EXPECT_EQ(first.pack.ids, (Ids{2, 3, 4, 5, 6}));
  EXPECT_EQ(first.pack.position, (Ids{0, 1, 2, 3, 2}));
  EXPECT_EQ(first.hidden, (Rows{0, 1, 2, 3, 2}));
  EXPECT_EQ(second.pack.ids, (Ids{3, 4, 5, 6}));
  EXPECT_EQ(second.hidden, (Rows{0, 1, 2, 1}));
  // The trunk is used up: a branch loses its own first row now.
  EXPECT_EQ(third.pack.ids, (Ids{4, 5, 6}));
  EXPECT_EQ(third.hidden, (Rows{0, 1, 0}));
  EXPECT_EQ(NextMtpRows(third.pack, false).pack.ids, (Ids{5}));
  EXPECT_EQ(NextMtpRows(third.pack, false).hidden, (Rows{0}));
}

TEST(MtpRowsTest, TargetsKeepTheirTokenAndLoseThoseTooEarly) {
  Pack pack;
  const int trunk = pack.Add(Ids{1, 2});
  pack.AddBranch(trunk, Ids{4, 5});
  pack.AddBranch(trunk, Ids{6});
  const Targets targets{{0, 1, 2, 3, 1, 4}, {2, 4, 5, 7, 6, 8}};
  const MtpRows first = NextMtpRows(pack, true), second = NextMtpRows(first.pack, false);
  ASSERT_EQ(first.pack.ids, (Ids{2, 4, 5, 6}));
  const Targets one = MtpTargets(pack, targets, first.pack, 0);
  EXPECT_EQ(one.row, (Ids{0, 1, 2, 0, 3}));
  EXPECT_EQ(one.target, (Ids{4, 5, 7, 6, 8}));
  const Targets two = MtpTargets(pack, targets, second.pack, 1);
  ASSERT_EQ(second.pack.ids, (Ids{4, 5, 6}));
  EXPECT_EQ(two.row, (Ids{0, 1, 2}));
  EXPECT_EQ(two.target, (Ids{5, 7, 8}));
}

}  // namespace
}  // namespace temper::learner
