/**
 * A batch of datagrams that one system call receives or sends: `recvmmsg` and `sendmmsg`, called through koffi. All sockets
 * share the memory of the batch.
 *
 * A result below zero is a failure: read `errno` right after it, before any other call.
 */
import * as SocketAddress from "./SocketAddress.js"

/** The most datagrams in one call. */
export const maxDatagrams = 16

export interface DatagramBatch {
  /** Receives datagrams. Returns how many; each can be read by its index until the next call. */
  readonly receive: (fd: number) => number
  readonly bytesOf: (index: number) => Uint8Array
  /** The address of the sender. */
  readonly nameOf: (index: number) => Uint8Array
  /** Sends the first `count` datagrams that `put` has stored. Returns how many the kernel took. */
  readonly send: (fd: number, count: number) => number
  /** Stores a datagram and its destination, `undefined` for a connected socket. */
  readonly put: (index: number, bytes: Uint8Array, to: Uint8Array | undefined) => void
  /** Datagrams that the kernel has dropped because the receive buffer of the socket was full. */
  readonly dropped: (fd: number) => number
  readonly errno: () => number
}

/** Fails when koffi is missing or cannot load the C library. */
export const load = async (): Promise<DatagramBatch> => {
  const { default: koffi } = await import("koffi")
  const library = koffi.load(null)
  const recvmmsg: (fd: number, messages: bigint, count: number, flags: number, timeout: null) => number = library.func(
    "int recvmmsg(int, void*, uint, int, void*)"
  )
  const sendmmsg: (fd: number, messages: bigint, count: number, flags: number) => number = library.func(
    "int sendmmsg(int, void*, uint, int)"
  )
  const getsockopt: (fd: number, level: number, name: number, value: Uint32Array, length: Uint32Array) => number =
    library.func("int getsockopt(int, int, int, void*, void*)")

  // Outside the heap, since the kernel is given addresses within it. It is never freed.
  const start = koffi.alloc("uint8", size)
  const address = koffi.address(start)
  const memory = koffi.view(start, size)
  const view = new DataView(memory)
  const bytes = new Uint8Array(memory)
  const at = (index: number) => address + BigInt(index)
  for (let index = 0; index < maxDatagrams; index++) {
    const header = headersAt + index * headerSize
    const vector = vectorsAt + index * vectorSize
    view.setBigUint64(header, at(namesAt + index * nameSize), true)
    view.setBigUint64(header + 16, at(vector), true)
    view.setBigUint64(header + 24, 1n, true)
    view.setBigUint64(vector, at(buffersAt + index * bufferSize), true)
  }
  /** Sets the lengths of a name and of its datagram. */
  const prepare = (index: number, nameLength: number, length: number) => {
    const header = headersAt + index * headerSize
    view.setBigUint64(header, nameLength === 0 ? 0n : at(namesAt + index * nameSize), true)
    view.setUint32(header + 8, nameLength, true)
    view.setBigUint64(vectorsAt + index * vectorSize + 8, BigInt(length), true)
  }

  const meminfo = new Uint32Array(meminfoFields)
  const meminfoLength = new Uint32Array(1)
  return {
    receive: (fd) => {
      for (let index = 0; index < maxDatagrams; index++) prepare(index, SocketAddress.maxBytes, bufferSize)
      return recvmmsg(fd, at(headersAt), maxDatagrams, MSG_DONTWAIT, null)
    },
    bytesOf: (index) => {
      const length = view.getUint32(headersAt + index * headerSize + 56, true)
      const from = buffersAt + index * bufferSize
      return bytes.slice(from, from + length)
    },
    nameOf: (index) => bytes.slice(namesAt + index * nameSize, namesAt + index * nameSize + SocketAddress.maxBytes),
    send: (fd, count) => sendmmsg(fd, at(headersAt), count, MSG_DONTWAIT),
    put: (index, datagram, to) => {
      prepare(index, to?.length ?? 0, datagram.length)
      bytes.set(datagram, buffersAt + index * bufferSize)
      if (to !== undefined) bytes.set(to, namesAt + index * nameSize)
    },
    dropped: (fd) => {
      meminfoLength[0] = meminfo.byteLength
      return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, meminfoLength) < 0 ? 0 : (meminfo[dropsField] ?? 0)
    },
    errno: () => koffi.errno()
  }
}

// internal

/** `struct mmsghdr` and `struct iovec`, with pointers of 64 bits. */
const [headerSize, vectorSize] = [64, 16]
const nameSize = 32
const bufferSize = 65_536
const headersAt = 0
const vectorsAt = headersAt + maxDatagrams * headerSize
const namesAt = vectorsAt + maxDatagrams * vectorSize
const buffersAt = namesAt + maxDatagrams * nameSize
const size = buffersAt + maxDatagrams * bufferSize

// Constants of Linux, the same on x64 and arm64.
const MSG_DONTWAIT = 0x40
const SOL_SOCKET = 1
const SO_MEMINFO = 55
const [meminfoFields, dropsField] = [9, 8]
