// The table of contents: one function per op family, each in its own file. It adds its cases for
// the plan's device.
#pragma once
#include "bench/harness/case.h"

namespace retort::bench {

void add_elementwise_cases(Plan& plan);  // unary, binary, axpy, slices, cast, fill, random
void add_row_cases(Plan& plan);          // softmax, sums, expansion, bias, mse, scaled rows
void add_indexed_row_cases(Plan& plan);  // gather, scatter, segments, ranks, dropout
void add_vocabulary_cases(Plan& plan);   // embedding, linear and loss in chunks
void add_gemm_cases(Plan& plan);         // matrix products
void add_conv2d_cases(Plan& plan);       // convolution and its two gradients
void add_batch_norm_cases(Plan& plan);
void add_attention_cases(Plan& plan);     // forward, backward, both
void add_layer_norm_cases(Plan& plan);    // with residual and dropout
void add_image_cases(Plan& plan);         // pooling, shortcut, batches of images
void add_distill_loss_cases(Plan& plan);  // all divergences
void add_optimizer_cases(Plan& plan);     // sgd, adamw, grad_norm
void add_step_statistics_cases(Plan& plan);
void add_step_cases(Plan& plan);  // whole steps of models
void add_copy_cases(Plan& plan);  // plain and past the caches

/// All of them, for one device.
Plan all_cases(Device device, bool smoke);

}  // namespace retort::bench
