// `temper`: everything but the training itself, which temper-learner does.
#include "cli/commands.h"

int main(int argc, char** argv) {
  using namespace temper::cli;
  constexpr Command kCommands[] = {
      {"quickstart", "the whole story on a tiny model: SFT, GRPO, evaluation before and after",
       Quickstart},
      {"init", "make a random model in Hugging Face layout", Init},
      {"convert", "store a model as FP8 blocks, BF16 or FP32, or merge an adapter", Convert},
      {"teach", "have a teacher judge rows: distillation rows for sft", Teach},
      {"sft", "supervised fine-tuning", Sft},
      {"grpo", "reinforcement learning: starts a learner, actors and reward workers", Grpo},
      {"generate", "complete prompts", Generate},
      {"bench", "prefill and decode rates against this machine's memory", Bench},
      {"eval", "score completions of a data set: mean@k, pass@k", Eval},
      {"reward", "write rewards: test, lint, try, backtest, watch", Reward},
      {"runs", "look into the trajectory database of a run", Runs},
      {"probe", "numbers to hold Temper against another implementation", Probe},
      {"doctor", "what this machine has, what is missing and how to get it", Doctor},
      {"keys", "CURVE keys for learners and peers on several machines", Keys},
      {"actor", "generate rollouts for a learner", Actor},
      {"reward-worker", "score rollouts for a learner", RewardWorker},
      {"reward-zygote", "", RewardZygote},
  };
  return RunProgram("temper",
                    "Post-trains DeepSeek-family language models: fine-tuning, then GRPO.",
                    kCommands, argc, argv);
}
