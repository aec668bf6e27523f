/**
 * Many datagrams a system call: `recvmmsg` and `sendmmsg`, over koffi, through memory that all sockets share.
 *
 * A result below zero is a failure that `errno` names, asked at once.
 */
import * as SocketAddress from "./SocketAddress.js"

/** Datagrams a call at most. */
export const batch = 16

export interface Messages {
  /** Takes what has come, as many datagrams as it answers; each is read by its index until the next call. */
  readonly receive: (fd: number) => number
  readonly bytesOf: (index: number) => Uint8Array
  /** The address that one came from. */
  readonly nameOf: (index: number) => Uint8Array
  /** Sends the first so many, which `put` has put in. Answers how many were taken. */
  readonly send: (fd: number, count: number) => number
  /** What to send, to whom; nobody where the socket is connected. */
  readonly put: (index: number, bytes: Uint8Array, to: Uint8Array | undefined) => void
  /** Datagrams for which the socket had no room, so far. */
  readonly dropped: (fd: number) => number
  readonly errno: () => number
}

/** Fails where koffi, or the C library it is to load, is not there. */
export const load = async (): Promise<Messages> => {
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

  // Outside of what is collected, and moved, by the garbage collector; for as long as the process runs.
  const start = koffi.alloc("uint8", size)
  const address = koffi.address(start)
  const memory = koffi.view(start, size)
  const view = new DataView(memory)
  const bytes = new Uint8Array(memory)
  const at = (index: number) => address + BigInt(index)
  for (let index = 0; index < batch; index++) {
    const header = headersAt + index * headerSize
    const vector = vectorsAt + index * vectorSize
    view.setBigUint64(header, at(namesAt + index * nameSize), true)
    view.setBigUint64(header + 16, at(vector), true)
    view.setBigUint64(header + 24, 1n, true)
    view.setBigUint64(vector, at(buffersAt + index * bufferSize), true)
  }
  /** Room for a name and for bytes. */
  const prepare = (index: number, name: number, length: number) => {
    const header = headersAt + index * headerSize
    view.setBigUint64(header, name === 0 ? 0n : at(namesAt + index * nameSize), true)
    view.setUint32(header + 8, name, true)
    view.setBigUint64(vectorsAt + index * vectorSize + 8, BigInt(length), true)
  }

  const meminfo = new Uint32Array(meminfoFields)
  const meminfoLength = new Uint32Array(1)
  return {
    receive: (fd) => {
      for (let index = 0; index < batch; index++) prepare(index, SocketAddress.room, bufferSize)
      return recvmmsg(fd, at(headersAt), batch, MSG_DONTWAIT, null)
    },
    bytesOf: (index) => {
      const length = view.getUint32(headersAt + index * headerSize + 56, true)
      const from = buffersAt + index * bufferSize
      return bytes.slice(from, from + length)
    },
    nameOf: (index) => bytes.slice(namesAt + index * nameSize, namesAt + index * nameSize + SocketAddress.room),
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

/** `struct mmsghdr` and `struct iovec` where pointers have 64 bits. */
const [headerSize, vectorSize] = [64, 16]
const nameSize = 32
const bufferSize = 65_536
const headersAt = 0
const vectorsAt = headersAt + batch * headerSize
const namesAt = vectorsAt + batch * vectorSize
const buffersAt = namesAt + batch * nameSize
const size = buffersAt + batch * bufferSize

// The numbers of Linux, the same on x64 and arm64.
const MSG_DONTWAIT = 0x40
const SOL_SOCKET = 1
const SO_MEMINFO = 55
const [meminfoFields, dropsField] = [9, 8]
