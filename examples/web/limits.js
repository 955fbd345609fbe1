// @ts-check
/** What each limit of WebGPU is about, in words. */
/** @type {Record<string, string>} */
const WORDS = {
  maxBufferSize: "bytes in one buffer",
  maxStorageBufferBindingSize: "bytes of a buffer in one binding",
  maxStorageBuffersPerShaderStage: "buffers bound to one kernel",
  maxComputeWorkgroupStorageSize: "bytes that a workgroup shares",
  maxComputeInvocationsPerWorkgroup: "invocations in a workgroup",
};

/**
 * Return why a device cannot run what needs these limits, or an empty string.
 *
 * @param {Record<string, number>} needed by WebGPU's names
 * @param {GPUSupportedLimits} limits of the device
 */
export function missing(needed, limits) {
  const given = /** @type {Record<string, any>} */ (limits);
  return Object.entries(needed)
    .filter(([name, value]) => value > given[name])
    .map(([name, value]) => {
      const [most, all] = [given[name], value].map((number) => number.toLocaleString("en"));
      return `The model needs ${all} ${WORDS[name] ?? name}, and this browser allows ${most} (${name}).`;
    })
    .join(" ");
}

/**
 * Return the adapter's values of all limits that kernels may need.
 *
 * @param {GPUSupportedLimits} limits of the adapter
 */
export function wanted(limits) {
  const given = /** @type {Record<string, any>} */ (limits);
  return Object.fromEntries(Object.keys(WORDS).map((name) => [name, Number(given[name])]));
}
