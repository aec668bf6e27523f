/**
 * A pointer that OpenSSL returns, `null` when it is out of memory.
 */
export type Pointer = bigint | null

/** A function of OpenSSL as koffi calls it. */
export type Call<Parameters extends ReadonlyArray<unknown>, Result> = (...parameters: Parameters) => Result

export const checked = (pointer: Pointer): bigint => {
  if (pointer === null) throw new Error("OpenSSL is out of memory")
  return pointer
}
