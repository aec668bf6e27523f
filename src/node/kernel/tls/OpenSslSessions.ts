/**
 * Sessions of OpenSSL: the TLS state of one connection.
 */
import type { LibraryHandle } from "koffi"
import type { OpenSslErrors } from "./OpenSslErrors.js"
import { type Call, checked, type Pointer } from "./OpenSslPointer.js"

export interface OpenSslSessions {
  /** A session that has no BIO yet to read from and write to. */
  readonly newSession: (context: bigint, side: "server" | "client") => bigint
  readonly freeSession: (session: bigint) => void
  /** Sets the server name that a client asks for, RFC 6066. */
  readonly setServerName: (session: bigint, name: string) => void
  /** Sets the name or address that the certificate of the peer must be for. Throws when it is empty. */
  readonly setExpectedHost: (session: bigint, host: string) => void
  /** Sets the BIO that a session reads from and writes to; `undefined` for none. */
  readonly attach: (session: bigint, bio: bigint | undefined) => void

  // A result of zero or less is explained by `getError`.

  /** Returns 1 when the handshake is complete. */
  readonly handshake: (session: bigint) => number
  /** Reads bytes of one record. Returns how many. */
  readonly read: (session: bigint, bytes: Uint8Array, count: number) => number
  readonly write: (session: bigint, bytes: Uint8Array, count: number) => number
  /** Writes the `close_notify` alert. Must not be called on a session that has failed. */
  readonly shutdown: (session: bigint) => number

  /** The certificate of the peer in DER. */
  readonly peerCertificate: (session: bigint) => Uint8Array | undefined
  /** The result of verifying the certificate of the peer, by the name that Node has for it, such as `CERT_HAS_EXPIRED`. */
  readonly verifyResult: (session: bigint) => string
}

/** Results of a verification that callers distinguish. */
export const verifyResults = { ok: "OK", wrongName: "HOSTNAME_MISMATCH" } as const

export const bind = (library: LibraryHandle, { clearErrors }: OpenSslErrors): OpenSslSessions => {
  const create: Call<[bigint], Pointer> = library.func("void* SSL_new(void*)")
  const setServer: Call<[bigint], void> = library.func("void SSL_set_accept_state(void*)")
  const setClient: Call<[bigint], void> = library.func("void SSL_set_connect_state(void*)")
  const control: Call<[bigint, number, number, string], number> = library.func(
    "long SSL_ctrl(void*, int, long, const char*)"
  )
  const parametersOf: Call<[bigint], bigint> = library.func("void* SSL_get0_param(void*)")
  const setFlags: Call<[bigint, number], void> = library.func("void X509_VERIFY_PARAM_set_hostflags(void*, uint)")
  const setHost: Call<[bigint, string, number], number> = library.func(
    "int X509_VERIFY_PARAM_set1_host(void*, const char*, size_t)"
  )
  const setAddress: Call<[bigint, string], number> = library.func(
    "int X509_VERIFY_PARAM_set1_ip_asc(void*, const char*)"
  )
  const setBio: Call<[bigint, Pointer, Pointer], void> = library.func("void SSL_set_bio(void*, void*, void*)")
  const addReference: Call<[bigint], number> = library.func("int BIO_up_ref(void*)")
  const verifyResultOf: Call<[bigint], number> = library.func("long SSL_get_verify_result(void*)")
  return {
    newSession: (context, side) => {
      const session = checked(create(context))
      if (side === "server") setServer(session)
      else setClient(session)
      return session
    },
    freeSession: library.func("void SSL_free(void*)"),
    setServerName: (session, name) => {
      control(session, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name)
    },
    setExpectedHost: (session, host) => {
      const parameters = parametersOf(session)
      setFlags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
      const isSet = host !== "" && (setAddress(parameters, host) === 1 || setHost(parameters, host, 0) === 1)
      clearErrors()
      // Without an expected host OpenSSL would accept a certificate for any.
      if (!isSet) throw new Error("no certificate can be for this name")
    },
    attach: (session, bio) => {
      // SSL_set_bio takes one reference when the BIO to read from is also the one to write to.
      if (bio !== undefined) addReference(bio)
      setBio(session, bio ?? null, bio ?? null)
    },
    handshake: library.func("int SSL_do_handshake(void*)"),
    read: library.func("int SSL_read(void*, void*, int)"),
    write: library.func("int SSL_write(void*, void*, int)"),
    shutdown: library.func("int SSL_shutdown(void*)"),
    peerCertificate: bindPeerCertificate(library),
    verifyResult: (session) => {
      const result = verifyResultOf(session)
      return resultNames[result] ?? `X509_V_ERR_${result}`
    }
  }
}

// internal

const bindPeerCertificate = (library: LibraryHandle): OpenSslSessions["peerCertificate"] => {
  const certificateOf: Call<[bigint], Pointer> = library.func("void* SSL_get1_peer_certificate(void*)")
  const freeCertificate: Call<[bigint], void> = library.func("void X509_free(void*)")
  const memory: () => bigint = library.func("void* BIO_s_mem()")
  const newBio: Call<[bigint], Pointer> = library.func("void* BIO_new(void*)")
  const freeBio: Call<[bigint], number> = library.func("int BIO_free(void*)")
  const writeDer: Call<[bigint, bigint], number> = library.func("int i2d_X509_bio(void*, void*)")
  const pendingBytes: Call<[bigint], number> = library.func("size_t BIO_ctrl_pending(void*)")
  const readBio: Call<[bigint, Uint8Array, number], number> = library.func("int BIO_read(void*, void*, int)")
  return (session) => {
    const certificate = certificateOf(session)
    if (certificate === null) return undefined
    const bio = checked(newBio(memory()))
    writeDer(bio, certificate)
    const der = new Uint8Array(pendingBytes(bio))
    readBio(bio, der, der.length)
    freeBio(bio)
    freeCertificate(certificate)
    return der
  }
}

// The numbers of `ssl.h`, `tls1.h` and `x509_vfy.h`, the same in every OpenSSL 3.
const SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
const TLSEXT_NAMETYPE_host_name = 0
const X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 0x4

const resultNames: Readonly<Record<number, string>> = {
  0: verifyResults.ok,
  2: "UNABLE_TO_GET_ISSUER_CERT",
  3: "UNABLE_TO_GET_CRL",
  4: "UNABLE_TO_DECRYPT_CERT_SIGNATURE",
  6: "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY",
  7: "CERT_SIGNATURE_FAILURE",
  9: "CERT_NOT_YET_VALID",
  10: "CERT_HAS_EXPIRED",
  13: "ERROR_IN_CERT_NOT_BEFORE_FIELD",
  14: "ERROR_IN_CERT_NOT_AFTER_FIELD",
  17: "OUT_OF_MEM",
  18: "DEPTH_ZERO_SELF_SIGNED_CERT",
  19: "SELF_SIGNED_CERT_IN_CHAIN",
  20: "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  21: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  22: "CERT_CHAIN_TOO_LONG",
  23: "CERT_REVOKED",
  24: "INVALID_CA",
  25: "PATH_LENGTH_EXCEEDED",
  26: "INVALID_PURPOSE",
  27: "CERT_UNTRUSTED",
  28: "CERT_REJECTED",
  62: verifyResults.wrongName,
  64: verifyResults.wrongName
}
