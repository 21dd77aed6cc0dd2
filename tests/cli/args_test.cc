#include "cli/args.h"

#include <gtest/gtest.h>

#include "configs/error.h"

namespace temper::cli {
namespace {

struct Parsed {
  std::string file, text = "none";
  std::vector<std::string> list;
  double number = 0.5;
  int integer = 3;
  bool flag = false;
};

Parsed Parse(const std::vector<std::string>& arguments) {
  Parsed p;
  Args args("temper thing", "Does a thing.");
  args.Positional("FILE", "what is read", &p.file);
  args.Text("--text", "T", "words", &p.text);
  args.List("--list", "L", "items", &p.list);
  args.Number("--number", "a share", 0, 1, &p.number);
  args.Integer("--integer", "a count", 1, 10, &p.integer);
  args.Flag("--flag", "a switch", &p.flag);
  args.Parse(arguments);
  return p;
}

std::string ErrorOf(const std::vector<std::string>& arguments) {
  try {
    Parse(arguments);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ArgsTest, ReadsEveryKindInAnyOrder) {
  const Parsed p = Parse({"--list", "a", "--number=0.25", "f.json", "--flag", "--integer", "7",
                          "--list=b=c", "--text", "-x"});
  EXPECT_EQ(p.file, "f.json");
  EXPECT_EQ(p.text, "-x");
  EXPECT_EQ(p.list, (std::vector<std::string>{"a", "b=c"}));
  EXPECT_EQ(p.number, 0.25);
  EXPECT_EQ(p.integer, 7);
  EXPECT_TRUE(p.flag);
}

TEST(ArgsTest, TakesDashedArgumentsAfterTwoDashes) {
  EXPECT_EQ(Parse({"--", "--flag"}).file, "--flag");
}

TEST(ArgsTest, NamesWhatIsWrong) {
  const std::string see = "; see temper thing --help";
  EXPECT_EQ(ErrorOf({}), "temper thing: FILE is missing: what is read" + see);
  EXPECT_EQ(ErrorOf({"f", "g"}), "temper thing: g: one argument too many" + see);
  EXPECT_EQ(ErrorOf({"f", "--nmber", "1"}), "temper thing: --nmber: unknown option" + see);
  EXPECT_EQ(ErrorOf({"f", "--number", "1.5"}),
            "temper thing: --number: 1.5 must be in [0, 1]" + see);
  EXPECT_EQ(ErrorOf({"f", "--number", "nan"}),
            "temper thing: --number: nan must be in [0, 1]" + see);
  EXPECT_EQ(ErrorOf({"f", "--integer", "2x"}),
            "temper thing: --integer: \"2x\" must be an integer in [1, 10]" + see);
  EXPECT_EQ(ErrorOf({"f", "--integer", "99999999999"}),
            "temper thing: --integer: \"99999999999\" must be an integer in [1, 10]" + see);
  EXPECT_EQ(ErrorOf({"f", "--text"}), "temper thing: --text: a value must follow: --text T" + see);
  EXPECT_EQ(ErrorOf({"f", "--flag=1"}), "temper thing: --flag: takes no value" + see);
}

}  // namespace
}  // namespace temper::cli
