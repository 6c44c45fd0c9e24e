"""The whole ledger as one view: operators' movements, and charges, each of which is its request's own row.

A charge has no second row, since nothing could be in it that the request's row does not say, and writing it was a tenth
of what a request cost this service.
"""

# A charge took effect when its request ended; 3 is EntryKind.CHARGE, 'revenue' is House.REVENUE.
CREATE_VIEW = """
    CREATE VIEW entry AS
    SELECT entry_id, kind, account_id, debit_account_id, credit_account_id, amount_nanousd, overflow_nanousd,
        request_id, note, create_time_us
    FROM movement
    UNION ALL
    SELECT entry_id, CAST(3 AS smallint), account_id, account_id, 'revenue', charged_nanousd, overflow_nanousd,
        request_id, '', end_time_us
    FROM usage_event WHERE charged_nanousd > 0
"""
