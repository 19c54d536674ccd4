// The parts of an eager step that torch spreads over many passes, in one pass each; and calling a
// compiled program many times at once, which torch does from Python alone.
//
// `search/engine/native.py` builds this file, passes the columns of `Rate` and `Constant` as macros
// and mirrors the structs.  `step.py`, `optim.py`, `penalty.py` and `rng.py` hold the formulas.
// Each slot is worked out by itself, and all rows are multiples of 16 numbers, so no slot's bits
// depend on its neighbours.
//
// K slots, R numbers of a region, S steps of an epoch, U hidden units, B rows of a batch

#include <cmath>
#include <cstdint>

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

template <typename T, bool kAdam>
void update(const Update<T>& u) {
  for (int64_t slot = 0; slot < u.num_slots; ++slot) {
    if (!u.occupied[slot]) continue;
    const T factor = u.clips ? clip_factor(u, slot) : T(1);
    for (int64_t r = 0; r < u.num_regions; ++r) {
      const Region<T>& region = u.regions[r];
      Coefficients<T> c = coefficients(u, slot, region.is_others);
      if (u.clips) c.l1 = c.l2 = 0;  // they are in the gradients by now
      if (c.l1 != 0 || c.l2 != 0 || c.threshold != 0) {
        update_row<T, kAdam, true>(region, slot, c, factor);
      } else {
        update_row<T, kAdam, false>(region, slot, c, factor);
      }
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
    for (int64_t i = 0; i < num_draws; ++i) {
      uint64_t word = key + uint64_t(counters[i]);
      word = (word ^ (word >> 30)) * uint64_t(RNG_MULTIPLIER_1);
      word = (word ^ (word >> 27)) * uint64_t(RNG_MULTIPLIER_2);
      factors[i] = int64_t(word) >= threshold ? scale : T(0);
    }
  }
}

// Of torch's C interface: `aoti_torch_new_tensor_handle`, `AOTInductorModelContainerRunSingleThreaded`.
using NewHandle = int32_t (*)(void* tensor, void** copy);
using RunModel = int32_t (*)(void* container, void** inputs, size_t num_inputs, void** outputs,
                             size_t num_outputs, void* stream, void* proxy_executor);

constexpr int64_t kMaxInputs = 256;

}  // namespace

extern "C" {

// Runs a model on the same tensors again and again; 0, or the status of the call that failed.
int32_t run_model(RunModel run, void* container, NewHandle new_handle, void* const* tensors,
                  int64_t num_tensors, int64_t count) {
  void* inputs[kMaxInputs];  // a call uses its handles up
  for (int64_t call = 0; call < count; ++call) {
    for (int64_t i = 0; i < num_tensors; ++i)
      if (int32_t status = new_handle(tensors[i], &inputs[i])) return status;
    if (int32_t status = run(container, inputs, num_tensors, nullptr, 0, nullptr, nullptr))
      return status;
  }
  return 0;
}

void adam_float32(const Update<float>* u) { update<float, true>(*u); }
void adam_float64(const Update<double>* u) { update<double, true>(*u); }
void sgd_float32(const Update<float>* u) { update<float, false>(*u); }
void sgd_float64(const Update<double>* u) { update<double, false>(*u); }
void dropout_float32(const Dropout<float>* d) { dropout(*d); }
void dropout_float64(const Dropout<double>* d) { dropout(*d); }
}
