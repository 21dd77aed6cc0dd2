#include "wire/protocol.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace temper::wire {
namespace {

/// Through the frames and back.
template <class T>
T Travel(const T& sent) {
  return T::Decode(Decode(Encode(sent.Encode())));
}

Rollout ARollout() {
  return {0xfedcba9876543210u, {41, 3, 1}, "stop", 17, {5, 6, 7}, {-0.5f, -1.25f, -0.0f}, {}};
}

Grant AGrant() {
  Grant grant;
  grant.session = ~0ull;
  grant.version = 17;
  grant.sampling = {7, 32, 0.7, 0.9, 0.05, 50, {1, 2}};
  grant.groups = {{41, 0, {9, 8, 7}, {0, 1, 2, 3}}, {42, 2, {1}, {5}}};
  return grant;
}

ScoreRequest ARequest() {
  ScoreRequest request;
  request.id = 0x8000000000000001u;
  request.grp = 41;
  request.step = 6;
  request.prompt = "\"2+2=\"";
  request.row = R"({"prompt":"2+2="})";
  request.answer = "4";
  request.samples = {
      {0, 17, "stop", "4", {52, 1}}, {1, 17, "length", "", {}}, {2, 16, "stop", "\xff", {3}}};
  return request;
}

ScoreResult AResult() {
  ScoreResult result;
  result.id = 1;
  result.grp = 41;
  result.samples.push_back({0, 1.5, "ok", {{"math", 1.5, 1.0, "ok", "", 0, "", 12}}});
  result.samples.push_back(
      {1,
       std::nullopt,
       "script_error",
       {{"x", std::nullopt, 0.5, "script_error", "x.lua:3: attempt to index nil", 3, "ab", 7}}});
  return result;
}

WeightsManifest AManifest() {
  return {5,
          18,
          20,
          {{"a", "F32", {2, 2}, 0, 16, std::string(64, 'a')},
           {"b", "BF16", {2}, 16, 20, std::string(64, 'b')}}};
}

TEST(ProtocolTest, ScriptsTravel) {
  const Scripts scripts{{{"/a.lua", "function score() return 1 end"}, {"/b.lua", ""}}};
  EXPECT_EQ(Travel(scripts).files, scripts.files);
  EXPECT_EQ(KindName(32), "scripts");
  Message message = scripts.Encode();
  message.arrays.pop_back();
  EXPECT_THROW(Scripts::Decode(message), ProtocolError);
}

TEST(ProtocolTest, HelloAndWelcomeTravel) {
  Hello hello{Role::kRewardWorker,         "w1", ~0ull, 123,      "0.1.0",
              {"canon-1/fp32/cache-fp32"}, 8,    5,     {{41, 1}}};
  const Hello h = Travel(hello);
  EXPECT_EQ(h.role, Role::kRewardWorker);
  EXPECT_EQ(h.name, "w1");
  EXPECT_EQ(h.instance, ~0ull);
  EXPECT_EQ(h.pid, 123);
  EXPECT_EQ(h.numerics, hello.numerics);
  EXPECT_EQ(h.rows, 8);
  EXPECT_EQ(h.session, 5u);
  EXPECT_EQ(h.held, hello.held);
  Welcome welcome{7,
                  "arith",
                  2.5,
                  "id",
                  std::string(200000, 'x'),
                  "/m",
                  "{}",
                  300,
                  {{"a.lua", "return"}, {"b.lua", ""}}};
  const Welcome w = Travel(welcome);
  EXPECT_EQ(w.config, welcome.config);
  EXPECT_EQ(w.files, welcome.files);
  EXPECT_EQ(w.peer_timeout_s, 2.5);
  EXPECT_EQ(w.valid_ids, 300);
}

TEST(ProtocolTest, AManifestMayNameAGroupAndAHelloItsDevice) {
  Hello hello;
  hello.name = "a1";
  hello.rows = 1;
  EXPECT_FALSE(hello.Encode().header.contains("fabric"));
  EXPECT_EQ(Travel(hello).fabric + Travel(hello).device, "");
  hello.fabric = "nccl-22703";
  hello.device = "boot/bus";
  EXPECT_EQ(Travel(hello).fabric, hello.fabric);
  EXPECT_EQ(Travel(hello).device, hello.device);
  WeightsManifest manifest = AManifest();
  EXPECT_FALSE(Travel(manifest).fabric);
  std::string group(128, '\0');
  for (std::size_t i = 0; i < group.size(); ++i) group[i] = static_cast<char>(i * 37);
  manifest.fabric = {group, 2, 3};
  const WeightsManifest got = Travel(manifest);
  ASSERT_TRUE(got.fabric);
  EXPECT_EQ(got.fabric->group, group);
  EXPECT_EQ(got.fabric->rank, 2);
  EXPECT_EQ(got.fabric->ranks, 3);
  const auto broken = [&](const char* field, const Json& value) {
    Message message = manifest.Encode();
    message.header[field] = value;
    EXPECT_THROW(WeightsManifest::Decode(message), ProtocolError) << field << " " << value;
  };
  broken("fabric", std::string(254, '0'));
  broken("fabric", std::string(255, '0') + "g");
  broken("fabric", 7);
  broken("rank", 0);
  broken("rank", 3);
  broken("ranks", 1);
  broken("ranks", 1 << 20);
  broken("ranks", nullptr);
}

TEST(ProtocolTest, AGrantTravels) {
  const Grant grant = AGrant();
  const Grant got = Travel(grant);
  EXPECT_EQ(got.session, grant.session);
  EXPECT_EQ(got.sampling.stop_ids, grant.sampling.stop_ids);
  EXPECT_EQ(got.sampling.temperature, 0.7);
  EXPECT_EQ(got.sampling.max_new_tokens, 32);
  ASSERT_EQ(got.groups.size(), 2u);
  EXPECT_EQ(got.groups[0].prompt_ids, grant.groups[0].prompt_ids);
  EXPECT_EQ(got.groups[1].samples, grant.groups[1].samples);
  EXPECT_EQ(got.groups[1].attempt, 2);
}

TEST(ProtocolTest, ARolloutTravelsBitForBit) {
  Rollout rollout = ARollout();
  const Rollout got = Travel(rollout);
  EXPECT_EQ(got.id, rollout.id);
  EXPECT_EQ(got.ids, rollout.ids);
  ASSERT_EQ(got.logp.size(), 3u);
  EXPECT_EQ(std::memcmp(got.logp.data(), rollout.logp.data(), 12), 0);
  rollout.versions = {17, 17, 18};
  EXPECT_EQ(Travel(rollout).versions, rollout.versions);
}

TEST(ProtocolTest, ARolloutWhoseArraysDisagreeIsRefused) {
  Rollout rollout = ARollout();
  rollout.logp.pop_back();
  EXPECT_THROW(Travel(rollout), ProtocolError);
  rollout = ARollout();
  rollout.versions = {17};
  EXPECT_THROW(Travel(rollout), ProtocolError);
  rollout = ARollout();
  rollout.finish = "done";
  EXPECT_THROW(Travel(rollout), ProtocolError);
}

TEST(ProtocolTest, AcknowledgementsAndRefusalsTravel) {
  const Ack ack{{{41, 3, 1}, {42, 0, 0}}};
  EXPECT_EQ(Travel(ack).rollouts, ack.rollouts);
  EXPECT_FALSE(Travel(Refuse{kHelloFirst, "who?", std::nullopt}).rollout.has_value());
  const Refuse refuse = Travel(Refuse{kNotTaken, "no", RolloutId{41, 3, 1}});
  EXPECT_EQ(refuse.rollout, (RolloutId{41, 3, 1}));
  EXPECT_EQ(refuse.code, kNotTaken);
  EXPECT_TRUE(Travel(Goodbye{"disk full", true}).failed);
}

TEST(ProtocolTest, ScoresTravel) {
  const ScoreRequest request = ARequest();
  const ScoreRequest got = Travel(request);
  EXPECT_EQ(got.id, request.id);
  EXPECT_EQ(got.answer, request.answer);
  EXPECT_EQ(got.row, request.row);
  ASSERT_EQ(got.samples.size(), 3u);
  EXPECT_EQ(got.samples[1].finish, "length");
  EXPECT_EQ(got.samples[2].completion, "\xff");
  EXPECT_EQ(got.samples[0].completion_ids, request.samples[0].completion_ids);
  ScoreRequest without = ARequest();
  without.answer.reset();
  EXPECT_FALSE(Travel(without).answer.has_value());

  const ScoreResult result = Travel(AResult());
  ASSERT_EQ(result.samples.size(), 2u);
  EXPECT_EQ(result.samples[0].score, 1.5);
  EXPECT_FALSE(result.samples[1].score.has_value());
  EXPECT_EQ(result.samples[1].parts[0].message, "x.lua:3: attempt to index nil");
  EXPECT_EQ(result.samples[1].parts[0].line, 3);
  EXPECT_EQ(result.samples[1].parts[0].weight, 0.5);
}

TEST(ProtocolTest, AGroupOfAThousandSamplesFitsOneRequest) {
  ScoreRequest request = ARequest();
  request.samples.clear();
  for (std::uint32_t i = 0; i < 5000; ++i)
    request.samples.push_back({i, 17, "stop", "text", {1, 2}});
  EXPECT_EQ(Travel(request).samples.size(), 5000u);
}

TEST(ProtocolTest, AFailureMessageOfAnyBytesTravels) {
  ScoreResult result = AResult();
  result.samples[1].parts[0].message = "\xff\xfe" + std::string(100000, 'x');
  EXPECT_EQ(Travel(result).samples[1].parts[0].message.size(), 100006u);
}

TEST(ProtocolTest, WeightsTravel) {
  const WeightsManifest manifest = Travel(AManifest());
  ASSERT_EQ(manifest.tensors.size(), 2u);
  EXPECT_EQ(manifest.tensors[1].shape, (std::vector<std::int64_t>{2}));
  EXPECT_EQ(manifest.bytes, 20u);
  EXPECT_EQ(Travel(WeightsPull{18, 1ull << 40, 4096}).offset, 1ull << 40);
  EXPECT_EQ(Travel(WeightsLoaded{3, 18}).version, 18u);
  const WeightsChunk chunk = Travel(WeightsChunk{18, 4, Bytes::Copy(std::string_view("abcd"))});
  EXPECT_EQ(chunk.data.view.size(), 4u);
  EXPECT_EQ(chunk.offset, 4u);
}

TEST(ProtocolTest, AManifestOfALargeModelIsLongerThanAnArray) {
  // DeepSeek-V3 in FP8 has some 90,000 tensors.
  WeightsManifest manifest = AManifest();
  WeightsManifest::Tensor tensor = manifest.tensors[0];
  const std::uint64_t size = tensor.end - tensor.begin;
  manifest.tensors.clear();
  for (std::uint64_t i = 0; i < 110'000; ++i) {
    tensor.name =
        "model.layers.60.mlp.experts." + std::to_string(i) + ".down_proj.weight_scale_inv";
    tensor.begin = i * size;
    tensor.end = tensor.begin + size;
    tensor.sha256 = std::string(64, 'a');
    manifest.tensors.push_back(tensor);
  }
  manifest.bytes = tensor.end;
  EXPECT_GT(manifest.Encode().arrays.size(), 1u);
  EXPECT_EQ(Travel(manifest).tensors.size(), manifest.tensors.size());
  EXPECT_EQ(Travel(manifest).tensors.back().name, tensor.name);
  Message cut = manifest.Encode();
  cut.arrays.pop_back();
  EXPECT_THROW(WeightsManifest::Decode(cut), ProtocolError);
}

TEST(ProtocolTest, AManifestWithHolesOrOverlapsIsRefused) {
  WeightsManifest manifest = AManifest();
  manifest.tensors[1].begin = 12;
  EXPECT_THROW(Travel(manifest), ProtocolError);
  manifest = AManifest();
  manifest.bytes = 21;
  EXPECT_THROW(Travel(manifest), ProtocolError);
  EXPECT_THROW(Travel(WeightsPull{18, 0, kMaxChunkBytes + 1}), ProtocolError);
  EXPECT_THROW(Travel(WeightsPull{18, 0, 0}), ProtocolError);
}

TEST(ProtocolTest, ADeltasPiecesFollowTheRulesOfTheirForms) {
  WeightsManifest manifest = AManifest();
  manifest.base = 17;
  manifest.delta_bytes = 9;
  manifest.tensors[0].form = DeltaForm::kPatch;
  manifest.tensors[0].delta_end = 5;
  manifest.tensors[1].form = DeltaForm::kFull;
  manifest.tensors[1].delta_begin = 5;
  manifest.tensors[1].delta_end = 9;
  const WeightsManifest got = Travel(manifest);
  EXPECT_EQ(got.base, 17u);
  EXPECT_EQ(got.tensors[0].form, DeltaForm::kPatch);
  EXPECT_EQ(got.tensors[1].delta_end, 9u);
  const auto refused = [&](const std::function<void(WeightsManifest&)>& change) {
    WeightsManifest changed = manifest;
    change(changed);
    EXPECT_THROW(Travel(changed), ProtocolError);
  };
  refused([](auto& m) { m.delta_bytes = 10; });
  refused([](auto& m) { m.tensors[1].delta_begin = 6; });
  refused([](auto& m) { m.tensors[1].delta_end = 8; });            // full, but shorter
  refused([](auto& m) { m.tensors[0].form = DeltaForm::kSame; });  // same, but with bytes
  refused([](auto& m) { m.tensors[0].form = static_cast<DeltaForm>(3); });
  EXPECT_TRUE(Travel(WeightsPull{18, 0, 1, true}).delta);
  EXPECT_TRUE(Travel(WeightsChunk{18, 0, {}, true}).delta);
  EXPECT_EQ(Travel(WeightsLoaded{3, 18, 0xffffffff}).canary, 0xffffffffu);
  EXPECT_EQ(Travel(Heartbeat{Held{{41, 2}}}).held, (Held{{41, 2}}));
  EXPECT_EQ(Travel(Heartbeat{}).held, std::nullopt);
}

TEST(ProtocolTest, AMessageReadAsAnotherKindIsRefused) {
  EXPECT_THROW(Ack::Decode(ARollout().Encode()), ProtocolError);
  EXPECT_THROW(Hello::Decode(Heartbeat().Encode()), ProtocolError);
  EXPECT_EQ(KindName(21), "rollout");
  EXPECT_EQ(KindName(99), "kind 99");
}

template <class T>
bool Reads(const Message& message) {
  try {
    T::Decode(message);
    return true;
  } catch (const ProtocolError&) {
    return false;
  }
}

TEST(ProtocolTest, SurvivesMutatedMessages) {
  std::mt19937_64 random(11);
  const std::vector<Message> seeds = {
      AGrant().Encode(),
      ARollout().Encode(),
      ARequest().Encode(),
      AResult().Encode(),
      AManifest().Encode(),
      Ack{{{1, 2, 3}}}.Encode(),
      Welcome{7, "r", 1, "id", "{}", "/m", "{}", 3, {{"a", "b"}}}.Encode(),
      Hello{Role::kActor, "a", 1, 2, "v", {"n"}, 3, 4, {{5, 0}}}.Encode()};
  const Json odd = Json::parse(
      R"([null,-1,1e300,9223372036854775808,"","ffffffffffffffff",[],{},[{}],true,0.5])");
  int read = 0;
  for (int round = 0; round < 40000; ++round) {
    Message message = seeds[random() % seeds.size()];
    if (random() % 2 == 0 && !message.header.empty()) {
      auto at = message.header.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(random() % message.header.size()));
      at.value() = odd[random() % odd.size()];
    }
    if (!message.arrays.empty() && random() % 2 == 0) {
      Array& array = message.arrays[random() % message.arrays.size()];
      std::string bytes(reinterpret_cast<const char*>(array.bytes.view.data()),
                        array.bytes.view.size());
      if (random() % 3 == 0) bytes.resize(random() % 5 * 8);
      if (!bytes.empty()) bytes[random() % bytes.size()] = static_cast<char>(random());
      array.bytes = Bytes::Copy(std::string_view(bytes));
    }
    read += Reads<Grant>(message) + Reads<Rollout>(message) + Reads<ScoreRequest>(message) +
            Reads<ScoreResult>(message) + Reads<WeightsManifest>(message) + Reads<Ack>(message) +
            Reads<Welcome>(message) + Reads<Hello>(message);
  }
  EXPECT_GT(read, 1000);
}

}  // namespace
}  // namespace temper::wire
