class Traffic:
    commands_run: int
    input_bytes: int
    output_bytes: int
