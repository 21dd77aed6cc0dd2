// File names that an index gives: none leads out of the model's folder.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>

#include "configs/json.h"
#include "engine/safetensors.h"
#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

namespace fs = std::filesystem;

void WriteTensor(const std::string& path) {
  SafetensorsWriter writer(path, {{"x", Dtype::kF32, {1}}});
  writer.WriteFloats(std::vector<float>{1});
  writer.Close();
}

// outer/m is the model's folder, outer/secret.safetensors a readable file beside it.
class HostileNames : public testing::Test {
 protected:
  HostileNames() {
    fs::create_directories(outer_ / "m/inside");
    fs::create_directory(outer_ / "beside");
    WriteTensor(outer_ / "secret.safetensors");
    WriteTensor(outer_ / "beside/s.safetensors");
    WriteTensor(outer_ / "m/inside/good.safetensors");
    const auto link = [&](const std::string& to, const char* name) {
      fs::create_symlink(to, outer_ / ("m/" + std::string(name)));
    };
    link("../secret.safetensors", "up.safetensors");
    link(outer_ / "secret.safetensors", "absolute.safetensors");
    link(outer_ / "m/inside/good.safetensors", "absolute-inside.safetensors");
    link("inside/../../secret.safetensors", "down-up.safetensors");
    link("up.safetensors", "twice.safetensors");
    link("../beside", "folder");
    link("folder/s.safetensors", "through-folder.safetensors");
    link("loop.safetensors", "loop.safetensors");
    link("nowhere", "dangling.safetensors");
    link("/proc/self/environ", "proc.safetensors");
    link("/proc/self/fd/0", "fd.safetensors");
    link("/dev/zero", "zero.safetensors");
    link("/etc/passwd", "passwd.safetensors");
    link("../m/inside/good.safetensors", "out-and-in.safetensors");
    link("inside", "folder.safetensors");
    link("inside/good.safetensors", "good.safetensors");
  }

  std::string Open(const std::string& name) {
    outer_.Write("m/model.safetensors.index.json", Json{{"weight_map", {{"x", name}}}}.dump());
    return Refusal([&] { CheckpointReader reader(outer_ / "m"); });
  }
  std::string WrongOnes() {
    std::string wrong;
    for (const std::string& name : names_) {
      if (Open(name).empty()) wrong += name + "\n";
    }
    const std::string good = Open("good.safetensors");
    return good.empty() ? wrong : wrong + good;
  }

  const TempDir outer_;
  const std::vector<std::string> names_ = {"../secret.safetensors",
                                           "../../secret.safetensors",
                                           "./../secret.safetensors",
                                           "inside/../../secret.safetensors",
                                           "inside/good.safetensors",
                                           "./inside/good.safetensors",
                                           "//secret.safetensors",
                                           "/etc/passwd",
                                           "/etc/passwd\0.safetensors",
                                           "..\\secret.safetensors",
                                           "C:\\secret.safetensors",
                                           "file:///etc/passwd.safetensors",
                                           "http://h/x.safetensors",
                                           "%2e%2e%2fsecret.safetensors",
                                           "..",
                                           ".",
                                           "",
                                           "..safetensors",
                                           ".hidden.safetensors",
                                           "~/secret.safetensors",
                                           "x.bin",
                                           "good.safetensors/",
                                           "good.safetensors\n",
                                           std::string("good.safetensors\0", 17),
                                           std::string(5000, 'a') + ".safetensors",
                                           "up.safetensors",
                                           "absolute.safetensors",
                                           "absolute-inside.safetensors",
                                           "down-up.safetensors",
                                           "twice.safetensors",
                                           "through-folder.safetensors",
                                           "loop.safetensors",
                                           "dangling.safetensors",
                                           "proc.safetensors",
                                           "fd.safetensors",
                                           "zero.safetensors",
                                           "passwd.safetensors",
                                           "out-and-in.safetensors",
                                           "folder.safetensors",
                                           "\xEF\xBC\x8E\xEF\xBC\x8E/secret.safetensors"};
};

TEST_F(HostileNames, NoneOpensAFileOutsideTheFolder) {
  EXPECT_GE(names_.size(), 30u);
  EXPECT_EQ(WrongOnes(), "");
  for (const char* name : {"up.safetensors", "absolute.safetensors", "through-folder.safetensors",
                           "passwd.safetensors", "out-and-in.safetensors"}) {
    EXPECT_EQ(Open(name),
              outer_ / "m/" + name +
                  ": leaves the model's folder: files that its data names must lie in it");
  }
}

// Installs a filter under which openat2 does not exist.
bool ForbidOpenat2() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{4, code};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST_F(HostileNames, NorWhereTheKernelCannotKeepANameInside) {
  EXPECT_EXIT(
      {
        if (!ForbidOpenat2()) _exit(77);
        // "absolute-inside" ends inside and is told from the others only by openat2.
        const std::string wrong = WrongOnes();
        _exit(wrong == "absolute-inside.safetensors\nout-and-in.safetensors\n" ? 0 : 1);
      },
      [](int status) {
        return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
      },
      "");
}

TEST(DownloadCache, SnapshotsMayLinkToTheBlobsOfTheirCacheAlone) {
  const TempDir cache;
  fs::create_directories(cache / "models--x/snapshots/abc");
  fs::create_directories(cache / "models--x/blobs");
  WriteTensor(cache / "models--x/blobs/0123");
  WriteTensor(cache / "other");
  const std::string model = cache / "models--x/snapshots/abc";
  cache.Write("models--x/snapshots/abc/model.safetensors.index.json",
              R"({"weight_map": {"x": "s.safetensors"}})");
  fs::create_symlink("../../blobs/0123", model + "/s.safetensors");
  EXPECT_EQ(Refusal([&] { CheckpointReader reader(model); }), "");
  fs::remove(model + "/s.safetensors");
  fs::create_symlink("../../../other", model + "/s.safetensors");
  EXPECT_NE(Refusal([&] { CheckpointReader reader(model); }).find("leaves the model's folder"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::engine
