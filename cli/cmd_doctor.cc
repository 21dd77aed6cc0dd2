#include <sodium.h>
#include <sqlite3.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zmq.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <lua.hpp>

#include "cli/args.h"
#include "cli/child.h"
#include "cli/commands.h"
#include "cli/data_dir.h"
#include "cli/model.h"
#include "configs/error.h"
#include "configs/json.h"
#include "configs/version.h"
#include "engine/cuda/status.h"
#include "kernels/cpu.h"
#include "reward/function.h"
#include "reward/host.h"

namespace temper::cli {
namespace {

enum class Verdict { kOk, kNote, kMissing };

struct Finding {
  std::string name, found;
  Verdict verdict = Verdict::kOk;
  std::string remedy = "";  // what to do about it
};

constexpr char kSetup[] = "run scripts/setup";

std::string Gib(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GiB", bytes / (1 << 30));
  return text;
}

Finding System() {
  utsname name{};
  uname(&name);
  std::ifstream release("/etc/os-release");
  std::string pretty = "an unknown distribution";
  for (std::string line; std::getline(release, line);) {
    if (line.rfind("PRETTY_NAME=", 0) == 0) pretty = line.substr(13, line.size() - 14);
  }
  return {"system", pretty + ", Linux " + name.release + ", " + name.machine};
}

Finding Processor() {
  std::string isas;
  for (const kernels::Isa isa :
       {kernels::Isa::kScalar, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
    if (kernels::Supports(isa)) isas += (isas.empty() ? "" : ", ") + kernels::IsaName(isa);
  }
  Finding finding{"processor", kernels::CpuDescription() + "; " + std::to_string(Threads(0)) +
                                   " threads; variants " + isas + "; in use " +
                                   kernels::IsaName(kernels::ActiveIsa())};
  if (!kernels::Supports(kernels::Isa::kAvx2)) {
    finding.verdict = Verdict::kMissing;
    finding.remedy = "a processor with AVX2, FMA and F16C is needed";
  }
  return finding;
}

Finding Memory() {
  std::ifstream in("/proc/meminfo");
  double total = 0, available = 0, kib = 0;
  for (std::string key, unit; in >> key >> kib && std::getline(in, unit);) {
    if (key == "MemTotal:") total = kib * 1024;
    if (key == "MemAvailable:") available = kib * 1024;
  }
  Finding finding{"memory", Gib(available) + " free of " + Gib(total)};
  if (available < 1.5 * (1 << 30)) {
    finding.verdict = Verdict::kNote;
    finding.remedy = "the quickstart wants 1.5 GiB";
  }
  return finding;
}

Finding Disk() {
  struct statvfs disk {};
  const std::string here = std::filesystem::current_path().string();
  if (statvfs(here.c_str(), &disk) != 0) {
    return {"disk", here + " cannot be asked", Verdict::kNote, ""};
  }
  const double free = double(disk.f_bavail) * double(disk.f_frsize);
  Finding finding{"disk", Gib(free) + " free in " + here};
  if (access(here.c_str(), W_OK) != 0) {
    finding = {"disk", here + " is not writable", Verdict::kNote,
               "runs are written here by default"};
  } else if (free < 1e9) {
    finding.verdict = Verdict::kNote;
    finding.remedy = "the quickstart wants 1 GB; runs keep every version of the weights";
  }
  return finding;
}

Finding Libraries() {
  int major = 0, minor = 0, patch = 0;
  zmq_version(&major, &minor, &patch);
  const std::string zmq =
      std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  return {"libraries", "ZeroMQ " + zmq + ", SQLite " + sqlite3_libversion() + ", " + LUA_RELEASE +
                           ", libsodium " + sodium_version_string()};
}

Finding Learner() {
  std::string program;
  try {
    program = LearnerProgram();
  } catch (const MachineError& error) {
    return {"training", error.what(), Verdict::kMissing, kSetup};
  }
  const Outcome outcome = RunAndRead(program, {"--version"});
  const std::string said = outcome.output.substr(0, outcome.output.find('\n'));
  if (outcome.code != 0) {
    return {"training", program + " does not start: " + said, Verdict::kMissing, kSetup};
  }
  return {"training", said};
}

Finding Sandbox() {
  try {
    reward::HostOptions options;
    options.functions = {reward::ParseRewardArgument(DataFile("reward/library/sum.lua"))};
    reward::RewardHost host(options);
    host.Check();
    if (host.missing_isolation().empty()) return {"reward sandbox", "works, fully isolated"};
    return {"reward sandbox", "works, without " + host.missing_isolation(), Verdict::kNote,
            "run only scripts that you trust"};
  } catch (const std::runtime_error& error) {
    return {"reward sandbox", error.what(), Verdict::kMissing, kSetup};
  }
}

Finding Gpu() {
  std::ifstream in("/proc/driver/nvidia/version");
  std::string line;
  const std::string driver = std::getline(in, line) ? line : "no NVIDIA driver";
  const engine::DeviceStatus status = engine::CudaStatus();
  // The CPU is enough for everything: what a device lacks is a note at most.
  if (status.found.empty()) return {"GPU", driver + "; this build computes on the CPU"};
  return {"GPU", (line.empty() ? "" : line + "; ") + status.found,
          status.usable ? Verdict::kOk : Verdict::kNote,
          status.remedy};
}

const char* Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kNote:
      return "note";
    case Verdict::kMissing:
      return "missing";
  }
  return "";
}

}  // namespace

int Doctor(const Arguments& arguments) {
  bool json = false;
  Args args("temper doctor", "What this machine has, what is missing, and what to do about it.");
  args.Flag("--json", "one object", &json);
  args.Note("Exit 3 where training or scoring cannot run.\n");
  if (!args.Parse(arguments)) return 0;
  const Finding findings[] = {Sandbox(), System(),    Processor(), Memory(),
                              Disk(),    Libraries(), Learner(),   Gpu()};
  bool able = true;
  Json list = Json::array();
  if (!json) std::printf("temper %s\n", kVersion);
  for (const Finding& finding : findings) {
    able = able && finding.verdict != Verdict::kMissing;
    if (json) {
      list.push_back({{"name", finding.name},
                      {"verdict", Word(finding.verdict)},
                      {"found", finding.found},
                      {"remedy", finding.remedy}});
    } else {
      std::printf("%-8s %-15s %s%s%s\n", Word(finding.verdict), finding.name.c_str(),
                  finding.found.c_str(), finding.remedy.empty() ? "" : "; ",
                  finding.remedy.c_str());
    }
  }
  if (json) {
    PrintLine(Json{{"version", kVersion}, {"able", able}, {"findings", list}}.dump());
  } else {
    std::printf("%s\n",
                able ? "Ready: temper quickstart" : "Not ready; see what is missing above.");
  }
  return able ? 0 : 3;
}

}  // namespace temper::cli
