/**
 * A modal dialog with one form: Escape closes it, and the focus goes back to where it was.
 */
import type { ComponentChildren } from "preact"
import { useEffect, useRef, useState } from "preact/hooks"

export interface Props {
  readonly title: string
  /** What the button says that does it; without it the dialog only tells. */
  readonly action?: string | undefined
  readonly danger?: boolean | undefined
  /** The sentence of its failure is shown. */
  readonly onSubmit?: ((fields: FormData) => Promise<void>) | undefined
  /** What follows its success. Defaults to `onClose`. */
  readonly onSuccess?: (() => void) | undefined
  readonly onClose: () => void
  readonly children?: ComponentChildren
}

export const Dialog = ({ action, children, danger = false, onClose, onSubmit, onSuccess = onClose, title }: Props) => {
  const element = useRef<HTMLDialogElement>(null)
  const [trouble, setTrouble] = useState("")
  const [busy, setBusy] = useState(false)

  useEffect(() => {
    const before = document.activeElement
    element.current?.showModal()
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus()
    }
  }, [])

  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    if (!(event.target instanceof HTMLFormElement) || busy || onSubmit === undefined) return
    setBusy(true)
    setTrouble("")
    onSubmit(new FormData(event.target)).then(onSuccess, (error: unknown) => {
      setTrouble(error instanceof Error ? error.message : String(error))
      setBusy(false)
    })
  }

  return (
    <dialog ref={element} aria-labelledby="dialog-title" onClose={onClose}>
      <form onSubmit={submit}>
        <h2 id="dialog-title">{title}</h2>
        {children}
        <p class="trouble" role="alert">
          {trouble}
        </p>
        <div class="actions end">
          <button type="button" onClick={() => element.current?.close()}>
            {action === undefined ? "Close" : "Cancel"}
          </button>
          {action === undefined ? undefined : (
            <button type="submit" class={danger ? "danger" : "primary"} disabled={busy}>
              {action}
            </button>
          )}
        </div>
      </form>
    </dialog>
  )
}

export interface FieldProps {
  readonly name: string
  readonly label: string
  readonly value?: string | undefined
  readonly hint?: ComponentChildren
  readonly rows?: number | undefined
  readonly required?: boolean | undefined
}

export const Field = ({ hint, label, name, required = false, rows, value = "" }: FieldProps) => {
  const common = {
    id: `field-${name}`,
    name,
    required,
    spellcheck: false,
    autocomplete: "off",
    ...(hint === undefined ? {} : { "aria-describedby": `hint-${name}` })
  } as const
  return (
    <div class="field">
      <label for={common.id}>{label}</label>
      {rows === undefined ? (
        <input {...common} type="text" defaultValue={value} autocapitalize="none" />
      ) : (
        <textarea {...common} rows={rows} defaultValue={value} autocapitalize="none" />
      )}
      {hint === undefined ? undefined : (
        <small id={`hint-${name}`} class="hint">
          {hint}
        </small>
      )}
    </div>
  )
}
