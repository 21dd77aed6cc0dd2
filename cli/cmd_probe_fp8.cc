#include "cli/args.h"
#include "cli/commands.h"
#include "configs/error.h"
#include "configs/json.h"
#include "engine/probe_fp8.h"

namespace temper::cli {

int ProbeFp8(const Arguments& arguments) {
  std::string in, out, scale = "fp32";
  Args args("temper probe fp8",
            "Quantises x [M, K] by 1 x 128 and w [N, K] by 128 x 128, and multiplies them.");
  args.Text("--in", "F.safetensors", "x F32 [M, K], w F32 [N, K]", &in).Required();
  args.Text("--out", "O.safetensors", "x_q, w_q, x_scale, w_scale, y_w8a8, y_w8a16", &out)
      .Required();
  args.Text("--scale", "S", "fp32 or pow2", &scale);
  if (!args.Parse(arguments)) return 0;
  if (scale != "fp32" && scale != "pow2") {
    args.Fail("--scale: " + configs::Quote(scale) + " must be fp32 or pow2");
  }
  engine::ProbeFp8(in, out,
                   scale == "pow2" ? kernels::ScaleRecipe::kPow2 : kernels::ScaleRecipe::kFp32);
  return 0;
}

}  // namespace temper::cli
