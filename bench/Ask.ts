/**
 * The requests that the first byte of a connection makes of the target, and the sizes that both ends read and write.
 */
export const asks = { echo: 1, sink: 2, source: 3, answer: 4 } as const

/** Bytes of one read and one write of bulk: with less the generator's own JavaScript would be measured. */
export const bulkBytes = 256 * 1024

export const host = "127.0.0.1"
