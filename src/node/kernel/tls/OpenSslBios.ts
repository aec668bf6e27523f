/**
 * BIO pairs of OpenSSL: two buffers in memory. What is written into one BIO of a pair is read from the other.
 */
import type { LibraryHandle } from "koffi"
import { type Call, checked } from "./OpenSslPointer.js"

export interface OpenSslBios {
  /** A pair whose buffers hold so many bytes each. */
  readonly newBioPair: (bytes: number) => readonly [bigint, bigint]
  readonly freeBio: (bio: bigint) => void
  readonly writeBio: (bio: bigint, bytes: Uint8Array, count: number) => number
  readonly readBio: (bio: bigint, bytes: Uint8Array, count: number) => number
  /** Bytes that can be read from a BIO. */
  readonly pendingBytes: (bio: bigint) => number
}

export const bind = (library: LibraryHandle): OpenSslBios => {
  const newPair: Call<[BigUint64Array, number, BigUint64Array, number], number> = library.func(
    "int BIO_new_bio_pair(void*, size_t, void*, size_t)"
  )
  return {
    newBioPair: (bytes) => {
      const [first, second] = [new BigUint64Array(1), new BigUint64Array(1)]
      newPair(first, bytes, second, bytes)
      return [checked(first[0] ?? null), checked(second[0] ?? null)]
    },
    freeBio: library.func("int BIO_free(void*)"),
    writeBio: library.func("int BIO_write(void*, void*, int)"),
    readBio: library.func("int BIO_read(void*, void*, int)"),
    pendingBytes: library.func("size_t BIO_ctrl_pending(void*)")
  }
}
