/**
 * Contexts of OpenSSL: what the sessions of one side have in common, its certificate or its authorities.
 */
import type { LibraryHandle } from "koffi"
import type { OpenSslErrors } from "./OpenSslErrors.js"
import { type Call, checked, type Pointer } from "./OpenSslPointer.js"

export interface OpenSslContexts {
  /** A context for TLS 1.3 only, without session resumption. */
  readonly newContext: () => bigint
  /** Frees a context. Its sessions keep their share of it until they are freed. */
  readonly freeContext: (context: bigint) => void
  /** Sets the certificate chain and the private key, both PEM texts. Throws when OpenSSL cannot use them. */
  readonly useCertificate: (context: bigint, chain: string, key: string) => void
  /** Adds the certificates of a PEM text to the trusted authorities. */
  readonly trust: (context: bigint, authorities: string) => void
}

export const bind = (library: LibraryHandle, errors: OpenSslErrors): OpenSslContexts => {
  const pem = bindPem(library, errors)
  const method: () => bigint = library.func("void* TLS_method()")
  const create: Call<[bigint], Pointer> = library.func("void* SSL_CTX_new(void*)")
  const control: Call<[bigint, number, number, bigint | null], number> = library.func(
    "long SSL_CTX_ctrl(void*, int, long, void*)"
  )
  const setTickets: Call<[bigint, number], number> = library.func("int SSL_CTX_set_num_tickets(void*, size_t)")
  const setCertificate: Call<[bigint, bigint], number> = library.func("int SSL_CTX_use_certificate(void*, void*)")
  const setKey: Call<[bigint, bigint], number> = library.func("int SSL_CTX_use_PrivateKey(void*, void*)")
  const storeOf: Call<[bigint], bigint> = library.func("void* SSL_CTX_get_cert_store(void*)")
  const addToStore: Call<[bigint, bigint], number> = library.func("int X509_STORE_add_cert(void*, void*)")
  return {
    newContext: () => {
      const context = checked(create(method()))
      control(context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_3_VERSION, null)
      control(context, SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_3_VERSION, null)
      control(context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, null)
      control(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, null)
      setTickets(context, 0)
      return context
    },
    freeContext: library.func("void SSL_CTX_free(void*)"),
    useCertificate: (context, chain, key) => {
      const isChainUsed = pem.eachCertificate(chain, (certificate, index) =>
        index === 0
          ? setCertificate(context, certificate) === 1
          : control(context, SSL_CTRL_CHAIN_CERT, 1, certificate) === 1
      )
      const isKeyUsed = pem.withKey(key, (key) => setKey(context, key) === 1)
      if (!isChainUsed || !isKeyUsed) throw new Error("OpenSSL cannot use the certificate or its key")
    },
    trust: (context, authorities) => {
      const store = storeOf(context)
      pem.eachCertificate(authorities, (certificate) => addToStore(store, certificate) === 1)
    }
  }
}

// internal

/** Readers of PEM texts. */
const bindPem = (library: LibraryHandle, { clearErrors }: OpenSslErrors) => {
  const newBio: Call<[Uint8Array, number], Pointer> = library.func("void* BIO_new_mem_buf(void*, int)")
  const freeBio: Call<[bigint], number> = library.func("int BIO_free(void*)")
  const readCertificate: Call<[bigint, null, null, null], Pointer> = library.func(
    "void* PEM_read_bio_X509(void*, void*, void*, void*)"
  )
  const freeCertificate: Call<[bigint], void> = library.func("void X509_free(void*)")
  // The last parameter is the password. An empty one: OpenSSL must not ask for one at the terminal.
  const readKey: Call<[bigint, null, null, string], Pointer> = library.func(
    "void* PEM_read_bio_PrivateKey(void*, void*, void*, const char*)"
  )
  const freeKey: Call<[bigint], void> = library.func("void EVP_PKEY_free(void*)")

  const withBio = <A>(text: string, use: (bio: bigint) => A): A => {
    const bytes = Buffer.from(text)
    const bio = checked(newBio(bytes, bytes.length))
    try {
      return use(bio)
    } finally {
      freeBio(bio)
      clearErrors()
    }
  }
  return {
    /** Calls `use` with each certificate. Returns whether there was one and all were used. */
    eachCertificate: (text: string, use: (certificate: bigint, index: number) => boolean): boolean =>
      withBio(text, (bio) => {
        let areUsed = true
        let index = 0
        for (;;) {
          const certificate = readCertificate(bio, null, null, null)
          if (certificate === null) return areUsed && index > 0
          areUsed = use(certificate, index++) && areUsed
          freeCertificate(certificate)
        }
      }),
    /** Calls `use` with the private key. Returns whether there was one and it was used. */
    withKey: (text: string, use: (key: bigint) => boolean): boolean =>
      withBio(text, (bio) => {
        const key = readKey(bio, null, null, "")
        const isUsed = key !== null && use(key)
        if (key !== null) freeKey(key)
        return isUsed
      })
  }
}

// The numbers of `ssl.h` and `tls1.h`, the same in every OpenSSL 3.
const TLS1_3_VERSION = 0x0304
const SSL_CTRL_MODE = 33
const SSL_CTRL_SET_SESS_CACHE_MODE = 44
const SSL_CTRL_CHAIN_CERT = 89
const SSL_CTRL_SET_MIN_PROTO_VERSION = 123
const SSL_CTRL_SET_MAX_PROTO_VERSION = 124
const SSL_MODE_RELEASE_BUFFERS = 0x10
