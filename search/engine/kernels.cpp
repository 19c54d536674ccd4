// The parts of an eager step that torch spreads over many passes, in one pass each; and calling a
// compiled program many times at once, which torch does from Python alone.
//
// `search/engine/native.py` builds this file, passes the columns of `Rate` and `Constant` as macros
// and mirrors the structs.  `step.py`, `optim.py`, `penalty.py`, `regularise.py` and `rng.py` hold
// the formulas.
// Each slot is worked out by itself, and all rows are multiples of 16 numbers, so no slot's bits
// depend on its neighbours.
//
// K slots, R numbers of a region, S steps of an epoch, U hidden units, B rows of a batch

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kLanes = 16;  // partial sums of a norm: a fixed order, and vector registers

template <typename T>
struct Region {
  T* parameters;  // [K, R], like the others
  T* gradients;
  T* first;   // Adam's first moment, or SGD's momentum
  T* second;  // Adam's second moment; null for SGD
  int64_t size;
  int64_t is_others;  // 1: biases and norms, which have columns of coefficients of their own
  int64_t num_units;     // whose incoming weights begin the row; 0 where no norm has a bound
  int64_t num_incoming;  // weights of each unit
  const int64_t* noise_counters;  // [R], 0 in gaps; null without noise
};

template <typename T>
struct Update {
  const Region<T>* regions;
  int64_t num_regions;
  int64_t num_slots;
  int64_t num_steps;
  const T* rates;      // [K, S, NUM_RATES]
  const T* constants;  // [K, NUM_CONSTANTS]
  int64_t* step;       // [K]
  const bool* occupied;  // [K]
  int64_t clips;
  const int64_t* noise_keys;  // [K, S]; null where no slot has noise, as the next two
  const T* noise_scales;      // [K, S]
  const T* normal;            // [2**NORMAL_BITS] quantiles
  const T* max_norms;         // [K], 0 for none; null where no slot has one
};

template <typename T>
struct Dropout {
  int64_t num_slots;
  int64_t num_units;
  int64_t num_rows;
  int64_t num_steps;
  const int64_t* keys;        // [K, S]
  const int64_t* thresholds;  // [K, 1]
  const int64_t* counters;    // [U, B]
  const T* constants;         // [K, NUM_CONSTANTS]
  const int64_t* step;        // [K]
  T* factors;                 // [K, U, B]
};

template <typename T>
struct Coefficients {
  T scale, epsilon, keep, threshold, l1, l2, momentum, nesterov;
};

// By selection: 0·w is NaN where w is infinite, and a slot without l2 is to see none of it.
template <typename T>
inline T penalised(T gradient, T parameter, const Coefficients<T>& c) {
  const T shrinkage = c.l2 != 0 ? parameter * c.l2 : T(0);
  return gradient + shrinkage + c.l1 * T((parameter > 0) - (parameter < 0));
}

// kPenalised: with l1, l2 and the soft threshold, any of which may be 0.
template <typename T, bool kAdam, bool kPenalised>
void update_row(const Region<T>& region, int64_t slot, const Coefficients<T>& c, T factor) {
  T* __restrict p = region.parameters + slot * region.size;
  const T* __restrict g = region.gradients + slot * region.size;
  T* __restrict m = region.first + slot * region.size;
  T* __restrict v = kAdam ? region.second + slot * region.size : nullptr;
  const bool has_momentum = c.momentum != 0;
  const bool is_nesterov = c.nesterov != 0;
  for (int64_t i = 0; i < region.size; ++i) {
    const T gradient = (kPenalised ? penalised(g[i], p[i], c) : g[i]) * factor;
    T parameter = p[i] * c.keep;
    if (kAdam) {
      m[i] += (gradient - m[i]) * T(ADAM_1_MINUS_BETA_1);
      v[i] = v[i] * T(ADAM_BETA_2) + gradient * gradient * T(ADAM_1_MINUS_BETA_2);
      parameter -= m[i] / (std::sqrt(v[i]) * c.scale + c.epsilon);
    } else {
      const T buffer = has_momentum ? m[i] * c.momentum + gradient : m[i];
      const T ahead = is_nesterov ? gradient + buffer * c.momentum : buffer;
      m[i] = buffer;
      parameter -= (has_momentum ? ahead : gradient) * c.scale;
    }
    if (kPenalised) {
      const T bounded = parameter < c.threshold ? parameter : c.threshold;
      parameter -= bounded > -c.threshold ? bounded : -c.threshold;
    }
    p[i] = parameter;
  }
}

template <typename T>
Coefficients<T> coefficients(const Update<T>& u, int64_t slot, int64_t is_others) {
  const T* rates = u.rates + (slot * u.num_steps + u.step[slot]) * NUM_RATES;
  const T* constants = u.constants + slot * NUM_CONSTANTS;
  return {rates[RATE_SCALE],
          rates[RATE_EPSILON],
          rates[RATE_KEEP + is_others],
          rates[RATE_THRESHOLD + is_others],
          constants[CONSTANT_L1 + is_others],
          constants[CONSTANT_L2 + is_others],
          constants[CONSTANT_MOMENTUM],
          constants[CONSTANT_NESTEROV]};
}

template <typename T>
T squares(const T* __restrict gradients, int64_t size) {
  T sums[kLanes] = {};
  for (int64_t i = 0; i < size; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += gradients[i + lane] * gradients[i + lane];
  T total = 0;
  for (T sum : sums) total += sum;
  return total;
}

// What clips a slot's gradient, penalties included; they are then in the gradients.
template <typename T>
T clip_factor(const Update<T>& u, int64_t slot) {
  T total = 0;
  for (int64_t r = 0; r < u.num_regions; ++r) {
    const Region<T>& region = u.regions[r];
    const Coefficients<T> c = coefficients(u, slot, region.is_others);
    const T* __restrict p = region.parameters + slot * region.size;
    T* __restrict g = region.gradients + slot * region.size;
    for (int64_t i = 0; i < region.size; ++i) g[i] = penalised(g[i], p[i], c);
    total += squares(g, region.size);
  }
  const T max_norm = u.constants[slot * NUM_CONSTANTS + CONSTANT_CLIP_NORM];
  const T factor = max_norm / (std::sqrt(total) + T(CLIP_EPSILON));
  return factor > 1 ? 1 : factor;
}

inline int64_t draw(uint64_t key, int64_t counter) {
  uint64_t word = key + uint64_t(counter);
  word = (word ^ (word >> 30)) * uint64_t(RNG_MULTIPLIER_1);
  word = (word ^ (word >> 27)) * uint64_t(RNG_MULTIPLIER_2);
  return int64_t(word);
}

// Leaves in a slot's gradients all that they are to be: penalties, clipping and noise.
template <typename T>
void add_noise(const Update<T>& u, int64_t slot, T factor, T scale) {
  const uint64_t key = uint64_t(u.noise_keys[slot * u.num_steps + u.step[slot]]);
  for (int64_t r = 0; r < u.num_regions; ++r) {
    const Region<T>& region = u.regions[r];
    Coefficients<T> c = coefficients(u, slot, region.is_others);
    if (u.clips) c.l1 = c.l2 = 0;  // they are in the gradients by now
    const T* __restrict p = region.parameters + slot * region.size;
    T* __restrict g = region.gradients + slot * region.size;
    const int64_t* __restrict counters = region.noise_counters;
    const T* __restrict normal = u.normal;
    for (int64_t i = 0; i < region.size; ++i) {
      const int64_t level = (draw(key, counters[i]) >> (64 - NORMAL_BITS)) + (1 << (NORMAL_BITS - 1));
      const T noise = counters[i] != 0 ? normal[level] * scale : T(0);
      g[i] = penalised(g[i], p[i], c) * factor + noise;
    }
  }
}

// Shortens the incoming weights of a slot's units to a norm.
template <typename T>
void bound_norms(const Region<T>& region, int64_t slot, T max_norm) {
  for (int64_t unit = 0; unit < region.num_units; ++unit) {
    T* __restrict weights = region.parameters + slot * region.size + unit * region.num_incoming;
    T sums[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= region.num_incoming; i += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += weights[i + lane] * weights[i + lane];
    T total = 0;
    for (T sum : sums) total += sum;
    for (; i < region.num_incoming; ++i) total += weights[i] * weights[i];
    const T norm = std::sqrt(total);
    // A norm that is not finite stays: it tells that the run has diverged.
    if (!(norm > max_norm) || std::isinf(norm)) continue;
    const T factor = max_norm / norm;
    for (int64_t j = 0; j < region.num_incoming; ++j) weights[j] *= factor;
  }
}

template <typename T, bool kAdam>
void update(const Update<T>& u) {
  for (int64_t slot = 0; slot < u.num_slots; ++slot) {
    if (!u.occupied[slot]) continue;
    T factor = u.clips ? clip_factor(u, slot) : T(1);
    const T noise =
        u.noise_keys != nullptr ? u.noise_scales[slot * u.num_steps + u.step[slot]] : T(0);
    const T max_norm = u.max_norms != nullptr ? u.max_norms[slot] : T(0);
    if (noise != 0) {
      add_noise(u, slot, factor, noise);
      factor = 1;
    }
    for (int64_t r = 0; r < u.num_regions; ++r) {
      const Region<T>& region = u.regions[r];
      Coefficients<T> c = coefficients(u, slot, region.is_others);
      if (u.clips || noise != 0) c.l1 = c.l2 = 0;  // they are in the gradients by now
      if (c.l1 != 0 || c.l2 != 0 || c.threshold != 0) {
        update_row<T, kAdam, true>(region, slot, c, factor);
      } else {
        update_row<T, kAdam, false>(region, slot, c, factor);
      }
      if (max_norm != 0) bound_norms(region, slot, max_norm);
    }
    ++u.step[slot];
  }
}

template <typename T>
void dropout(const Dropout<T>& d) {
  const int64_t num_draws = d.num_units * d.num_rows;
  const int64_t* __restrict counters = d.counters;
  for (int64_t slot = 0; slot < d.num_slots; ++slot) {
    const uint64_t key = uint64_t(d.keys[slot * d.num_steps + d.step[slot]]);
    const int64_t threshold = d.thresholds[slot];
    const T scale = d.constants[slot * NUM_CONSTANTS + CONSTANT_DROPOUT_SCALE];
    T* __restrict factors = d.factors + slot * num_draws;
    for (int64_t i = 0; i < num_draws; ++i)
      factors[i] = draw(key, counters[i]) >= threshold ? scale : T(0);
  }
}

template <typename T>
struct Layer {
  int64_t num_in;
  int64_t num_out;
  int64_t bias_stride;  // numbers from one slot's bias to the next one's
  const T* bias;        // [H] of each slot
  T* bias_gradient;     // [H] of each slot
  T* activation;        // [K, H, B], before dropout; of the last layer the logits
  T* flow;              // [K, H, B], after dropout
  T* gradient;          // [K, H, B], of the loss by what the product gave
  const T* factors;     // [U, B] of each slot, from this layer's units on; null without dropout
  // torch's tensors, of the same memory.
  void* weight;             // [K, H, D]
  void* weight_transposed;  // [K, D, H]
  void* weight_gradient;    // [K, H, D]
  void* input;              // [K, D, B]
  void* input_transposed;   // [K, B, D]
  void* output;             // [K, H, B], the memory of `activation`
  void* output_gradient;    // [K, H, B], the memory of `gradient`
  void* input_gradient;     // [K, D, B]; null for the first layer
};

using Bmm = int32_t (*)(void* out, void* left, void* right);

template <typename T>
struct Mlp {
  const Layer<T>* layers;
  int64_t num_layers;
  int64_t num_rows;
  int64_t num_units;       // U, of all hidden layers
  const T* x;              // [N, D]
  const int64_t* y;        // [N]
  const int32_t* samples;  // [K, S, B]
  const bool* invalid;     // [S, B]
  const T* num_valid;      // [S]
  T* batch;                // [K, B, D]
  double* loss_sums;       // [K]
  int64_t* num_right;      // [K]
  const Dropout<T>* dropout;  // null without
  const Update<T>* update;
  Bmm bmm;
  const int64_t* input_keys;        // [K, S]; null where no slot drops inputs, as the next three
  const int64_t* input_thresholds;  // [K, 1]
  const int64_t* input_counters;    // [B, D]
  const T* input_scales;            // [K, 1]
  const T* smoothing;               // [K]; null where no slot smooths its labels
};

// exp for x ≤ 0, in operations that a compiler vectorises: Cody and Waite's reduction and the
// polynomial of Cephes' expf, to one unit in the last place.
inline float exp_of(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float n = std::floor(x * 1.44269504088896341f + 0.5f);
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const int32_t bits = (int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return y * scale;
}

inline double exp_of(double x) { return std::exp(x); }

template <typename T>
T sum(const T* __restrict values, int64_t size) {
  T sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += values[i + lane];
  T total = 0;
  for (T part : sums) total += part;
  for (; i < size; ++i) total += values[i];
  return total;
}

// Copies the rows of a table that are named.
inline void fetch_rows(char* rows, const char* table, const int32_t* named, int64_t num_rows,
                       int64_t num_bytes) {
  for (int64_t row = 0; row < num_rows; ++row) {
    if (row + 4 < num_rows) __builtin_prefetch(table + named[row + 4] * num_bytes);
    std::memcpy(rows + row * num_bytes, table + named[row] * num_bytes, num_bytes);
  }
}

template <typename T>
void fetch_samples(const Mlp<T>& m, int64_t slot) {
  const int64_t num_in = m.layers[0].num_in;
  const int64_t step = m.update->step[slot];
  const int32_t* samples = m.samples + (slot * m.update->num_steps + step) * m.num_rows;
  T* batch = m.batch + slot * m.num_rows * num_in;
  fetch_rows(reinterpret_cast<char*>(batch), reinterpret_cast<const char*>(m.x), samples,
             m.num_rows, num_in * sizeof(T));
}

// What the batch of a step is fetched from, and where to; numbers of any type.
struct Batch {
  int64_t num_slots;
  int64_t num_steps;
  int64_t num_rows;
  int64_t x_bytes;           // of a sample, and of its target
  int64_t y_bytes;
  int64_t number_bytes;      // of a number of rows
  const int64_t* step;       // [K]
  const int32_t* samples;    // [K, S, B]
  const char* x;             // [N, …]
  const char* y;             // [N, …]
  const bool* invalid;       // [S, B]
  const char* num_valid;     // [S]
  char* its_x;               // [K, B, …], and so on
  char* its_y;
  bool* its_invalid;
  char* its_num_valid;
};

void fetch(const Batch& b) {
  for (int64_t slot = 0; slot < b.num_slots; ++slot) {
    const int64_t step = b.step[slot], first = slot * b.num_rows;
    const int32_t* samples = b.samples + (slot * b.num_steps + step) * b.num_rows;
    fetch_rows(b.its_x + first * b.x_bytes, b.x, samples, b.num_rows, b.x_bytes);
    fetch_rows(b.its_y + first * b.y_bytes, b.y, samples, b.num_rows, b.y_bytes);
    std::memcpy(b.its_invalid + first, b.invalid + step * b.num_rows, b.num_rows);
    std::memcpy(b.its_num_valid + slot * b.number_bytes, b.num_valid + step * b.number_bytes,
                b.number_bytes);
  }
}

// Drops numbers of a slot's batch.
template <typename T>
void drop_inputs(const Mlp<T>& m, int64_t slot) {
  const int64_t threshold = m.input_thresholds[slot];
  if (threshold == INT64_MIN) return;  // that of a probability of 0
  const uint64_t key = uint64_t(m.input_keys[slot * m.update->num_steps + m.update->step[slot]]);
  const int64_t size = m.num_rows * m.layers[0].num_in;
  const int64_t* __restrict counters = m.input_counters;
  const T scale = m.input_scales[slot];
  T* __restrict batch = m.batch + slot * size;
  for (int64_t i = 0; i < size; ++i)
    batch[i] = draw(key, counters[i]) >= threshold ? batch[i] * scale : T(0);
}

template <typename T>
void activate(const Layer<T>& layer, const Mlp<T>& m, int64_t slot) {
  for (int64_t unit = 0; unit < layer.num_out; ++unit) {
    const T bias = layer.bias[slot * layer.bias_stride + unit];
    const int64_t at = (slot * layer.num_out + unit) * m.num_rows;
    T* __restrict activation = layer.activation + at;
    for (int64_t row = 0; row < m.num_rows; ++row) {
      // NaN stays NaN: it tells that the run has diverged.
      const T value = activation[row] + bias;
      activation[row] = value < 0 ? T(0) : value;
    }
    if (layer.factors == nullptr) continue;
    const T* __restrict factors = layer.factors + (slot * m.num_units + unit) * m.num_rows;
    T* __restrict flow = layer.flow + at;
    for (int64_t row = 0; row < m.num_rows; ++row) flow[row] = activation[row] * factors[row];
  }
}

// Softmax and cross-entropy of some rows: counts losses and right guesses, and leaves the gradient.
// Inlined with a constant `size`, so that loops over it are vector instructions.
// kSmooths: with the slot's smoothed labels.
template <typename T, bool kSmooths>
__attribute__((always_inline)) inline void lose_rows(const Layer<T>& layer, const Mlp<T>& m,
                                                     int64_t slot, int64_t first, int64_t size,
                                                     double* loss, int64_t* num_right) {
  const int64_t num_rows = m.num_rows;
  const int64_t num_classes = layer.num_out;
  const int64_t step = m.update->step[slot];
  const int32_t* samples = m.samples + (slot * m.update->num_steps + step) * num_rows + first;
  const bool* invalid = m.invalid + step * num_rows + first;
  const T scale = 1 / m.num_valid[step];
  T* logits = layer.activation + slot * num_classes * num_rows + first;
  T* gradients = layer.gradient + slot * num_classes * num_rows + first;
  const T* bias = layer.bias + slot * layer.bias_stride;
  T highest[kLanes], total[kLanes], weight[kLanes];
  int32_t guess[kLanes], target[kLanes];
  for (int64_t lane = 0; lane < size; ++lane) {
    highest[lane] = -INFINITY;
    total[lane] = 0;
    guess[lane] = 0;
    target[lane] = int32_t(m.y[samples[lane]]);
    weight[lane] = invalid[lane] ? T(0) : scale;
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    T* __restrict row = logits + c * num_rows;
    for (int64_t lane = 0; lane < size; ++lane) {
      const T logit = row[lane] + bias[c];
      row[lane] = logit;
      guess[lane] = logit > highest[lane] ? int32_t(c) : guess[lane];
      highest[lane] = logit > highest[lane] ? logit : highest[lane];
    }
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    const T* __restrict row = logits + c * num_rows;
    T* __restrict gradient = gradients + c * num_rows;
    for (int64_t lane = 0; lane < size; ++lane) {
      gradient[lane] = exp_of(row[lane] - highest[lane]);
      total[lane] += gradient[lane];
    }
  }
  const T smoothing = kSmooths ? m.smoothing[slot] : T(0);
  const T of_others = smoothing / T(num_classes), of_target = 1 - smoothing + of_others;
  for (int64_t lane = 0; lane < size; ++lane) {
    if (invalid[lane]) continue;
    const T chosen = logits[target[lane] * num_rows + lane];
    if (kSmooths) {
      T below = 0;  // the logits, as far as they are below the highest
      for (int64_t c = 0; c < num_classes; ++c) below += logits[c * num_rows + lane] - highest[lane];
      const T wanted = (1 - smoothing) * (chosen - highest[lane]) + of_others * below;
      *loss += double(std::log(total[lane]) - wanted);
    } else {
      *loss += double(std::log(total[lane]) - (chosen - highest[lane]));
    }
    *num_right += guess[lane] == target[lane];
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    T* __restrict gradient = gradients + c * num_rows;
    for (int64_t lane = 0; lane < size; ++lane) {
      const T is_target =
          target[lane] == c ? (kSmooths ? of_target : T(1)) : (kSmooths ? of_others : T(0));
      // By selection: a row that only pads adds nothing, not even NaN.
      const T value = (gradient[lane] / total[lane] - is_target) * weight[lane];
      gradient[lane] = weight[lane] == 0 ? T(0) : value;
    }
  }
}

template <typename T, bool kSmooths>
void lose(const Layer<T>& layer, const Mlp<T>& m, int64_t slot) {
  double loss = 0;
  int64_t num_right = 0;
  int64_t first = 0;
  for (; first + kLanes <= m.num_rows; first += kLanes)
    lose_rows<T, kSmooths>(layer, m, slot, first, kLanes, &loss, &num_right);
  if (first < m.num_rows)
    lose_rows<T, kSmooths>(layer, m, slot, first, m.num_rows - first, &loss, &num_right);
  m.loss_sums[slot] += loss;
  m.num_right[slot] += num_right;
}

// Back through dropout and relu of a hidden layer.
template <typename T>
void deactivate(const Layer<T>& layer, const Mlp<T>& m, int64_t slot) {
  const int64_t size = layer.num_out * m.num_rows;
  const T* __restrict activation = layer.activation + slot * size;
  T* __restrict gradient = layer.gradient + slot * size;
  if (layer.factors != nullptr) {
    const T* __restrict factors = layer.factors + slot * m.num_units * m.num_rows;
    for (int64_t i = 0; i < size; ++i) gradient[i] *= factors[i];
  }
  for (int64_t i = 0; i < size; ++i) gradient[i] = activation[i] <= 0 ? T(0) : gradient[i];
}

template <typename T>
int32_t train(const Mlp<T>& m, bool is_adam, int64_t count) {
  const Update<T>& u = *m.update;
  const Layer<T>& last = m.layers[m.num_layers - 1];
  for (int64_t call = 0; call < count; ++call) {
    for (int64_t slot = 0; slot < u.num_slots; ++slot) {
      if (!u.occupied[slot]) continue;
      fetch_samples(m, slot);
      if (m.input_keys != nullptr) drop_inputs(m, slot);
    }
    if (m.dropout != nullptr) dropout(*m.dropout);
    for (int64_t i = 0; i < m.num_layers; ++i) {
      const Layer<T>& layer = m.layers[i];
      if (int32_t status = m.bmm(layer.output, layer.weight, layer.input)) return status;
      for (int64_t slot = 0; slot < u.num_slots; ++slot) {
        if (!u.occupied[slot]) continue;
        if (&layer != &last) {
          activate(layer, m, slot);
        } else if (m.smoothing != nullptr && m.smoothing[slot] != 0) {
          lose<T, true>(layer, m, slot);
        } else {
          lose<T, false>(layer, m, slot);
        }
      }
    }
    for (int64_t i = m.num_layers - 1; i >= 0; --i) {
      const Layer<T>& layer = m.layers[i];
      if (&layer != &last)
        for (int64_t slot = 0; slot < u.num_slots; ++slot)
          if (u.occupied[slot]) deactivate(layer, m, slot);
      if (int32_t status =
              m.bmm(layer.weight_gradient, layer.output_gradient, layer.input_transposed))
        return status;
      for (int64_t slot = 0; slot < u.num_slots; ++slot)
        for (int64_t unit = 0; unit < layer.num_out; ++unit)
          layer.bias_gradient[slot * layer.bias_stride + unit] =
              sum(layer.gradient + (slot * layer.num_out + unit) * m.num_rows, m.num_rows);
      if (layer.input_gradient != nullptr)
        if (int32_t status =
                m.bmm(layer.input_gradient, layer.weight_transposed, layer.output_gradient))
          return status;
    }
    if (is_adam) {
      update<T, true>(u);
    } else {
      update<T, false>(u);
    }
  }
  return 0;
}

template <typename T>
struct EvaluatedLayer {
  int64_t num_in;
  int64_t num_out;
  int64_t weight_stride;  // numbers from one slot's to the next one's, like the next
  int64_t bias_stride;
  const T* weight_numbers;  // [H, D] of each slot
  const T* bias;            // [H] of each slot
  T* output_numbers;        // [E, H, B]
  // torch's tensors.
  void* weight;  // [E, H, D]
  void* input;   // [E, D, B]
  void* output;  // [E, H, B], the memory of `output_numbers`
};

// Of E slots, on one chunk of B rows.
template <typename T>
struct Evaluation {
  const EvaluatedLayer<T>* layers;
  int64_t num_layers;
  int64_t num_slots;
  int64_t num_rows;
  int64_t num_valid;  // rows that count, the first ones
  const int64_t* y;   // [B]
  double* totals;     // [E, 2]: adds losses and right guesses
  double* weights;    // [E, 2]: Σw² and the number of small weights; null leaves them out
  Bmm bmm;
};

template <typename T>
void judge(const Evaluation<T>& e, int64_t slot) {
  const EvaluatedLayer<T>& last = e.layers[e.num_layers - 1];
  const T* logits = last.output_numbers + slot * last.num_out * e.num_rows;
  const T* bias = last.bias + slot * last.bias_stride;
  for (int64_t first = 0; first < e.num_valid; first += kLanes) {
    // Rows past the valid ones are there too, up to a multiple of kLanes.
    T highest[kLanes], total[kLanes];
    int32_t guess[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      highest[lane] = -INFINITY;
      total[lane] = 0;
      guess[lane] = 0;
    }
    for (int64_t c = 0; c < last.num_out; ++c) {
      const T* __restrict row = logits + c * e.num_rows + first;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const T logit = row[lane] + bias[c];
        guess[lane] = logit > highest[lane] ? int32_t(c) : guess[lane];
        highest[lane] = logit > highest[lane] ? logit : highest[lane];
      }
    }
    for (int64_t c = 0; c < last.num_out; ++c) {
      const T* __restrict row = logits + c * e.num_rows + first;
      for (int64_t lane = 0; lane < kLanes; ++lane)
        total[lane] += exp_of(row[lane] + bias[c] - highest[lane]);
    }
    const int64_t size = e.num_valid - first < kLanes ? e.num_valid - first : kLanes;
    for (int64_t lane = 0; lane < size; ++lane) {
      const int64_t target = e.y[first + lane];
      const T chosen = logits[target * e.num_rows + first + lane] + bias[target];
      e.totals[2 * slot] += double(std::log(total[lane]) - (chosen - highest[lane]));
      e.totals[2 * slot + 1] += guess[lane] == target;
    }
  }
}

template <typename T>
void weigh(const Evaluation<T>& e, int64_t slot) {
  double sums[kLanes] = {};
  int64_t num_small = 0;
  for (int64_t i = 0; i < e.num_layers; ++i) {
    const EvaluatedLayer<T>& layer = e.layers[i];
    const T* __restrict weights = layer.weight_numbers + slot * layer.weight_stride;
    const int64_t size = layer.num_in * layer.num_out;
    int64_t at = 0;
    for (; at + kLanes <= size; at += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane)
        sums[lane] += double(weights[at + lane]) * double(weights[at + lane]);
    for (; at < size; ++at) sums[0] += double(weights[at]) * double(weights[at]);
    for (int64_t j = 0; j < size; ++j) num_small += std::fabs(weights[j]) < T(NEAR_ZERO);
  }
  double total = 0;
  for (double sum : sums) total += sum;
  e.weights[2 * slot] = total;
  e.weights[2 * slot + 1] = double(num_small);
}

template <typename T>
int32_t evaluate(const Evaluation<T>& e) {
  for (int64_t i = 0; i < e.num_layers; ++i) {
    const EvaluatedLayer<T>& layer = e.layers[i];
    if (int32_t status = e.bmm(layer.output, layer.weight, layer.input)) return status;
    if (i == e.num_layers - 1) break;
    for (int64_t unit = 0; unit < e.num_slots * layer.num_out; ++unit) {
      const int64_t slot = unit / layer.num_out;
      const T bias = layer.bias[slot * layer.bias_stride + unit % layer.num_out];
      T* __restrict output = layer.output_numbers + unit * e.num_rows;
      for (int64_t row = 0; row < e.num_rows; ++row) {
        const T value = output[row] + bias;
        output[row] = value < 0 ? T(0) : value;
      }
    }
  }
  for (int64_t slot = 0; slot < e.num_slots; ++slot) {
    judge(e, slot);
    if (e.weights != nullptr) weigh(e, slot);
  }
  return 0;
}

// Of torch's C interface: `AOTInductorModelContainerRunSingleThreaded`, and of a tensor's handle
// `aoti_torch_new_tensor_handle`, `aoti_torch_get_data_ptr` and `aoti_torch_delete_tensor_object`.
using RunModel = int32_t (*)(void* container, void** inputs, size_t num_inputs, void** outputs,
                             size_t num_outputs, void* stream, void* proxy_executor);
using NewHandle = int32_t (*)(void* tensor, void** copy);
using GetData = int32_t (*)(void* tensor, void** data);
using DeleteHandle = int32_t (*)(void* tensor);

// A compiled program and what it is called on.
struct Program {
  RunModel run;
  NewHandle new_handle;
  GetData get_data;
  DeleteHandle delete_handle;
  void* container;
  void* const* inputs;
  int64_t num_inputs;
  void** const* outputs;  // where to leave the address of each output's numbers for the update
  int64_t num_outputs;
  const Batch* batch;            // fetched before each call; null without
  void (*update)(const void*);   // called after each call; null without
  const void* update_arguments;
};

constexpr int64_t kMaxInputs = 1024;

}  // namespace

extern "C" {

// Calls a program again and again; 0, or the status of the call that failed.
int32_t run_program(const Program* p, int64_t count) {
  void *inputs[kMaxInputs], *outputs[kMaxInputs];  // a call uses the handles of its inputs up
  for (int64_t call = 0; call < count; ++call) {
    if (p->batch != nullptr) fetch(*p->batch);
    for (int64_t i = 0; i < p->num_inputs; ++i)
      if (int32_t status = p->new_handle(p->inputs[i], &inputs[i])) return status;
    if (int32_t status = p->run(p->container, inputs, p->num_inputs, outputs, p->num_outputs,
                                nullptr, nullptr))
      return status;
    for (int64_t i = 0; i < p->num_outputs; ++i)
      if (int32_t status = p->get_data(outputs[i], p->outputs[i])) return status;
    if (p->update != nullptr) p->update(p->update_arguments);
    for (int64_t i = 0; i < p->num_outputs; ++i)
      if (int32_t status = p->delete_handle(outputs[i])) return status;
  }
  return 0;
}

void adam_float32(const Update<float>* u) { update<float, true>(*u); }
void adam_float64(const Update<double>* u) { update<double, true>(*u); }
void sgd_float32(const Update<float>* u) { update<float, false>(*u); }
void sgd_float64(const Update<double>* u) { update<double, false>(*u); }
int32_t train_float32(const Mlp<float>* m, int64_t is_adam, int64_t count) {
  return train(*m, is_adam, count);
}
int32_t train_float64(const Mlp<double>* m, int64_t is_adam, int64_t count) {
  return train(*m, is_adam, count);
}
int32_t evaluate_float32(const Evaluation<float>* e) { return evaluate(*e); }
int32_t evaluate_float64(const Evaluation<double>* e) { return evaluate(*e); }
void dropout_float32(const Dropout<float>* d) { dropout(*d); }
void dropout_float64(const Dropout<double>* d) { dropout(*d); }
}
