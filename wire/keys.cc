#include "wire/keys.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"

namespace temper::wire {
namespace {

constexpr std::uint64_t kMaxFile = 4 << 20;
constexpr std::size_t kKeyChars = 40;

/// A member that must be a key; "" where it may be missing and is.
std::string KeyOf(const Json& json, const char* name, const std::string& where) {
  const auto member = json.find(name);
  const std::string at = where + ": " + name;
  if (member == json.end()) throw UserError(at + " is missing; temper keys new writes such files");
  std::uint8_t raw[32];
  if (!member->is_string() || member->get_ref<const std::string&>().size() != kKeyChars ||
      zmq_z85_decode(raw, member->get_ref<const std::string&>().c_str()) == nullptr) {
    throw UserError(at + " is no CURVE key: 40 characters of Z85");
  }
  return member->get<std::string>();
}

void CheckMode(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) throw UserError(path + ": " + std::strerror(errno));
  if (S_ISREG(found.st_mode) && (found.st_mode & 0077) != 0) {
    throw UserError(path + ": holds a secret key, but others may read or write it; chmod 600 " +
                    path);
  }
}

/// Whole or not at all, for its owner alone.
void WriteSecret(const std::string& path, const Json& json) {
  const std::string text = json.dump(1) + "\n", aside = path + ".tmp";
  unlink(aside.c_str());
  const int fd = open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const bool written = fd >= 0 &&
                       write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       fsync(fd) == 0;
  const int why = errno;
  if (fd >= 0) close(fd);
  if (!written || std::rename(aside.c_str(), path.c_str()) != 0) {
    const std::string error = std::strerror(written ? errno : why);
    unlink(aside.c_str());
    throw MachineError(path + ": cannot be written: " + error);
  }
}

Json NewPair() {
  char public_key[kKeyChars + 1], secret_key[kKeyChars + 1];
  if (zmq_curve_keypair(public_key, secret_key) != 0) {
    throw MachineError("this machine's libzmq was built without CURVE; install Debian's libzmq5");
  }
  return {{"public", public_key}, {"secret", secret_key}};
}

void CheckName(const std::string& name) {
  const bool plain = !name.empty() && name.size() <= 64 && name != "learner" && name[0] != '.' &&
                     name.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789._-") == std::string::npos;
  if (!plain) {
    throw UserError("keys: " + configs::Quote(name) +
                    " must be letters, digits, dots, dashes and underscores, and not \"learner\"");
  }
}

}  // namespace

Keys ReadKeys(const std::string& path) {
  CheckMode(path);
  const Json json = configs::ParseJson(configs::ReadWholeFile(path, kMaxFile), path);
  if (!json.is_object())
    throw UserError(path + ": not an object; temper keys new writes key files");
  for (const auto& [name, value] : json.items()) {
    if (name != "public" && name != "secret" && name != "learner" && name != "allow") {
      throw UserError(path + ": " + configs::Quote(name) +
                      " is no member of a key file: public, secret, learner or allow");
    }
  }
  Keys keys;
  keys.path = path;
  keys.public_key = KeyOf(json, "public", path);
  keys.secret_key = KeyOf(json, "secret", path);
  char derived[kKeyChars + 1];
  if (zmq_curve_public(derived, keys.secret_key.c_str()) != 0 || keys.public_key != derived) {
    throw UserError(path + ": public does not belong to secret");
  }
  keys.is_learner = json.contains("allow");
  if (keys.is_learner == json.contains("learner")) {
    throw UserError(path + ": a learner's file has \"allow\", a peer's \"learner\", and not both");
  }
  if (!keys.is_learner) {
    keys.learner = KeyOf(json, "learner", path);
    return keys;
  }
  keys.learner = keys.public_key;
  keys.allow[keys.public_key] = "learner";
  const Json& allow = json["allow"];
  if (!allow.is_object()) throw UserError(path + ": allow must be an object: name -> public key");
  for (const auto& [name, value] : allow.items()) {
    keys.allow[KeyOf(allow, name.c_str(), path + ": allow")] = name;
  }
  return keys;
}

std::vector<std::string> NewKeys(const std::string& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) CheckName(name);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw UserError(folder + ": " + error.message());
  const std::string learner_path = folder + "/learner.json";
  std::vector<std::string> made;
  Json learner;
  if (configs::Exists(learner_path)) {
    ReadKeys(learner_path);
    learner = configs::ReadJsonFile(learner_path);
  } else {
    learner = NewPair();
    learner["allow"] = Json::object();
    made.push_back(learner_path);
  }
  for (const std::string& name : names) {
    if (configs::Exists(folder + "/" + name + ".json") || learner["allow"].contains(name)) {
      throw UserError(folder + ": " + name +
                      " has a key already; remove its file and its line in learner.json first");
    }
    learner["allow"][name] = "";
  }
  std::vector<std::pair<std::string, Json>> peers;
  for (const std::string& name : names) {
    Json peer = NewPair();
    peer["learner"] = learner["public"];
    learner["allow"][name] = peer["public"];
    peers.emplace_back(folder + "/" + name + ".json", std::move(peer));
  }
  // Peers first: a list that names a key without a file would refuse the next try.
  for (const auto& [path, peer] : peers) {
    WriteSecret(path, peer);
    made.push_back(path);
  }
  WriteSecret(learner_path, learner);
  return made;
}

}  // namespace temper::wire
