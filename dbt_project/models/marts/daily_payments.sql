-- Money moves on the day of the payment, revenue belongs to the day of the order: see daily_revenue.
select
    {{ day_of('paid_at') }} as payment_date,
    method,
    count(*) as payments,
    count(*) filter (where status = 'failed') as failed_payments,
    coalesce(sum(amount) filter (where status = 'captured'), 0) as captured,
    coalesce(sum(amount) filter (where status = 'refunded'), 0) as refunded
from {{ source('shop', 'payments') }}
group by 1, 2
