#include "learner/core/metrics.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "configs/error.h"

namespace temper::learner {
namespace {

/// Keeps what the surviving history says: whole lines up to `step`.
void KeepUpTo(const std::string& path, std::int64_t step) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return;
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    if (in.eof()) break;  // no newline: torn by a crash
    try {
      const Json json = configs::ParseJson(line, path);
      if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer())
        continue;
      if (json["step"].get<std::int64_t>() <= step) kept += line + "\n";
    } catch (const UserError&) {
      continue;  // torn inside
    }
  }
  in.close();
  const std::string aside = path + ".tmp";
  std::ofstream out(aside, std::ios::binary | std::ios::trunc);
  out << kept;
  out.close();
  if (!out || std::rename(aside.c_str(), path.c_str()) != 0) {
    throw MachineError(path + ": " + std::strerror(errno));
  }
}

void Flatten(const std::string& prefix, const Json& object,
             std::vector<std::pair<std::string, double>>* out) {
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix.empty() ? key : prefix + "/" + key;
    if (value.is_object()) {
      Flatten(name, value, out);
    } else if (value.is_number() && name != "step") {
      out->emplace_back(name, value.get<double>());
    }
  }
}

}  // namespace

MetricsLog::MetricsLog(const std::string& run_dir, std::int64_t resumed_step)
    : path_(run_dir + "/metrics.jsonl"), tensorboard_(run_dir + "/tb", resumed_step) {
  KeepUpTo(path_, resumed_step);
  file_.reset(std::fopen(path_.c_str(), "ab"));
  if (file_ == nullptr) throw MachineError(path_ + ": " + std::strerror(errno));
}

void MetricsLog::Write(const Json& line) {
  const std::string text = line.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() ||
      std::fflush(file_.get()) != 0) {
    throw MachineError(path_ + ": " + std::strerror(errno));
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  std::vector<std::pair<std::string, double>> scalars;
  Flatten("", line, &scalars);
  tensorboard_.Scalars(line.at("step").get<std::int64_t>(), scalars);
}

}  // namespace temper::learner
