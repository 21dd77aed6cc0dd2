#include "cli/args.h"
#include "cli/commands.h"
#include "configs/json.h"
#include "wire/keys.h"

namespace temper::cli {
namespace {

int KeysNew(const Arguments& arguments) {
  std::string out = "keys";
  std::vector<std::string> names;
  Args args("temper keys new", "Makes CURVE keys: OUT/learner.json, and a file for each peer.");
  args.Text("--out", "DIR", "where they lie; an existing learner.json gets more peers", &out);
  args.List("--peer", "NAME", "a machine or process that may join; by default one named peer",
            &names);
  args.Note(
      "The learner: wire.keys = DIR/learner.json. Others get their own file and no other: temper "
      "actor --keys NAME.json.\nA line removed from \"allow\" in learner.json is refused from its "
      "next connection on.\n");
  if (!args.Parse(arguments)) return 0;
  if (names.empty()) names = {"peer"};
  Json files = Json::array();
  for (const std::string& path : wire::NewKeys(out, names)) files.push_back(path);
  PrintLine(Json{{"made", files}}.dump());
  return 0;
}

}  // namespace

int Keys(const Arguments& arguments) {
  constexpr Command kCommands[] = {{"new", "make keys, or add peers to a learner's", KeysNew}};
  return RunGroup("temper keys", "CURVE keys for runs over several machines.", kCommands,
                  arguments);
}

}  // namespace temper::cli
