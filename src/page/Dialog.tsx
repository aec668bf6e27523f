/**
 * A modal dialog with one form. Escape closes it and returns the focus.
 */
import type { ComponentChildren } from "preact"
import { useEffect, useRef, useState } from "preact/hooks"

export interface Props {
  readonly title: string
  /** The label of the submit button; without it the dialog only informs. */
  readonly action?: string | undefined
  readonly danger?: boolean | undefined
  /** The message of a failure is shown in the dialog. */
  readonly onSubmit?: ((fields: FormData) => Promise<void>) | undefined
  /** Called after success. Defaults to `onClose`. */
  readonly onSuccess?: (() => void) | undefined
  readonly onClose: () => void
  readonly children?: ComponentChildren
}

export const Dialog = ({ action, children, danger = false, onClose, onSubmit, onSuccess = onClose, title }: Props) => {
  const element = useRef<HTMLDialogElement>(null)
  const [problem, setProblem] = useState("")
  const [busy, setBusy] = useState(false)

  useEffect(() => {
    const previous = document.activeElement
    element.current?.showModal()
    return () => {
      if (previous instanceof HTMLElement && previous.isConnected) previous.focus()
    }
  }, [])

  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    if (!(event.target instanceof HTMLFormElement) || busy || onSubmit === undefined) return
    setBusy(true)
    setProblem("")
    onSubmit(new FormData(event.target)).then(onSuccess, (error: unknown) => {
      setProblem(error instanceof Error ? error.message : String(error))
      setBusy(false)
    })
  }

  return (
    <dialog ref={element} aria-labelledby="dialog-title" onClose={onClose}>
      <form onSubmit={submit}>
        <h2 id="dialog-title">{title}</h2>
        {children}
        <p class="problem" role="alert">
          {problem}
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
