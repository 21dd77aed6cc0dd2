#pragma once
// A file of CURVE keys: who its owner is, and whom it trusts.
#include <map>
#include <string>
#include <vector>

namespace temper::wire {

/// All keys are Z85 texts of 40 characters. A learner's file has an allow-list, a peer's file the
/// learner's public key (docs/formats.md, "Keys"). Peers on the learner's own machine may use its
/// file: its own key is always on the list.
struct Keys {
  std::string path;
  std::string public_key, secret_key;
  std::string learner;                       // whom a peer connects to
  std::map<std::string, std::string> allow;  // public key -> name; of a learner's file
  bool is_learner = false;
};

/// Throws UserError naming file and member: not a key file, a key that is none, a public key that
/// does not belong to the secret one, a file that others than its owner may read.
Keys ReadKeys(const std::string& path);

/// Makes FOLDER/learner.json unless it is there, and a file FOLDER/NAME.json for each name, which
/// joins the learner's allow-list. Gives the paths of the files made. Throws UserError where a
/// peer's file or name is there already: a key is never replaced in silence.
std::vector<std::string> NewKeys(const std::string& folder, const std::vector<std::string>& names);

}  // namespace temper::wire
