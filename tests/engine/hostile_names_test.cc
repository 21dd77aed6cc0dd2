// Names in a model's folder, those that an index gives and those of its files: none leads out of
// it.
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
#include "engine/checkpoint.h"
#include "engine/safetensors.h"
#include "engine/tokenizer.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

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
    EXPECT_EQ(Open(name), outer_ / "m/" + name +
                              ": leaves the model's folder: all files of a model must lie in it");
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

constexpr const char* kModelFiles[] = {"model.safetensors", "config.json", "tokenizer.json",
                                       "tokenizer_config.json", "chat_template.jinja"};

// A small model's files into `dir`, which is there.
void WriteModel(const std::string& dir) {
  const TempDir made;
  Json arch = TinyConfig().raw;
  arch["vocab_size"] = 300;
  made.Write("arch.json", arch.dump());
  const std::string tokenizer = TEMPER_SOURCE_DIR "/configs/tokenizers/bytes";
  InitModel(made / "arch.json", tokenizer, 1, Storage(), made / "m");
  std::ofstream(made / "m/chat_template.jinja") << "{{ messages[0].content }}";
  for (const char* name : kModelFiles) fs::copy_file(made / "m/" + name, dir + "/" + name);
}

// Reads everything of a model's folder.
void ReadAll(const std::string& dir) {
  const ModelConfig config = ReadModelConfig(dir);
  CheckpointRows weights(dir, config);
  Tokenizer tokenizer(dir);
  tokenizer.chat();
}

TEST(DownloadCache, EachFileOfASnapshotMayBeALinkToABlob) {
  const TempDir cache;
  const std::string snapshot = cache / "models--x/snapshots/abc";
  fs::create_directories(snapshot);
  fs::create_directories(cache / "models--x/blobs");
  WriteModel(cache / "models--x/blobs");
  for (const char* name : kModelFiles) {
    fs::create_symlink(std::string("../../blobs/") + name, snapshot + "/" + name);
  }
  EXPECT_EQ(Refusal([&] { ReadAll(snapshot); }), "");
  // The cache's path may itself be a link, and so may the folder that is named.
  fs::create_directory_symlink(cache / "models--x", cache / "link");
  EXPECT_EQ(Refusal([&] { ReadAll(cache / "link/snapshots/abc"); }), "");
  fs::create_directory_symlink(snapshot, cache / "model");
  EXPECT_EQ(Refusal([&] { ReadAll(cache / "model"); }), "");
}

TEST(DownloadCache, NoFileOfAModelMayBeALinkThatLeavesItsFolder) {
  for (const char* name : kModelFiles) {
    const TempDir outer;
    const std::string model = outer / "m";
    fs::create_directory(model);
    WriteModel(model);
    EXPECT_EQ(Refusal([&] { ReadAll(model); }), "");
    fs::rename(model + "/" + name, outer / name);
    fs::create_symlink(std::string("../") + name, model + "/" + name);
    EXPECT_EQ(
        Refusal([&] { ReadAll(model); }),
        model + "/" + name + ": leaves the model's folder: all files of a model must lie in it");
    // Nor does a copy take it along.
    if (std::string(name) != "config.json") {
      EXPECT_NE(Refusal([&] { ConvertModel(model, Storage(), outer / "out"); }), "") << name;
      EXPECT_FALSE(fs::exists(outer / "out"));
    }
    fs::remove(model + "/" + name);
    fs::create_directory(model + "/inside");
    fs::rename(outer / name, model + "/inside/" + name);
    fs::create_symlink(std::string("inside/") + name, model + "/" + name);
    EXPECT_EQ(Refusal([&] { ReadAll(model); }), "") << "links inside are followed";
  }
}

}  // namespace
}  // namespace temper::engine
