# Finds LibTorch for learner/ and sft/: CMAKE_PREFIX_PATH first, then the environment that scripts/setup makes (.venv).
# Gives TEMPER_TORCH, what temper_library(... LINKS) takes, and temper_torch_headers(target), the precompiled torch/torch.h.
set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # TorchConfig warns of a missing profiler library that nothing here uses
find_package(Torch QUIET)
if(NOT Torch_FOUND AND EXISTS ${CMAKE_SOURCE_DIR}/.venv/bin/python)
  execute_process(
    COMMAND ${CMAKE_SOURCE_DIR}/.venv/bin/python -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE complaint RESULT_VARIABLE failed)
  if(failed)
    message(STATUS ".venv has no working torch: ${complaint}")
  else()
    list(APPEND CMAKE_PREFIX_PATH ${prefix})
    find_package(Torch QUIET)
  endif()
endif()
unset(CMAKE_MESSAGE_LOG_LEVEL)
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch (>= 2.6) was not found. Run scripts/setup, which puts it into .venv, or name one with "
    "-DCMAKE_PREFIX_PATH=<prefix>, or build the inference side alone with -DTEMPER_LEARNER=OFF.")
endif()
if(Torch_VERSION AND Torch_VERSION VERSION_LESS 2.6)
  message(FATAL_ERROR "LibTorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX} is too old: 2.6 or newer is needed.")
endif()
message(STATUS "LibTorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX}")
set(TEMPER_TORCH ${TORCH_LIBRARIES})

# torch/torch.h costs 15 to 30 s a translation unit: compiled once for learner, which comes first, and reused by the others.
function(temper_torch_headers target)
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  if(target STREQUAL "learner")
    target_precompile_headers(${target} PRIVATE <torch/torch.h>)
  else()
    target_precompile_headers(${target} REUSE_FROM learner)
  endif()
endfunction()
